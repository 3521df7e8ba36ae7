"""Counting over shards: whatever the shards and spans, what one process learns from all lines comes out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import ray
from safetensors.numpy import load_file

from tests.bundle_maker import BundleMaker
from trainers.bundle import CopiedRanking
from trainers.dataset import Dataset
from trainers.item_to_item import AlsoBought, AlsoViewed, BoughtTogether, ItemKnn
from trainers.shards import counting
from trainers.shards.counting import Shards
from trainers.shards.source import Source
from trainers.shards.workers import MissingRayError, workers
from trainers.tifu_knn import TifuKnn
from trainers.user_to_user import UserToUser

ROOT = Path(__file__).parents[2]
CATALOGUE = [f"i{number:02}" for number in range(0, 40, 2)]
COLUMNS = ("event_id", "visitor_id", "item_id", "event_type", "time_ms")


def lines() -> pl.DataFrame:
    random = np.random.default_rng(3)
    rows = []
    for number in range(700):
        visitor = int(random.integers(0, 43))
        kind = ("view", "click", "purchase", "purchase")[number % 4]
        items = np.minimum(random.geometric(0.08, random.integers(1, 6)), 40) - 1
        time_ms = 1_700_000_000_000 + number // 3 * 1000
        rows += [(f"e{number}", f"v{visitor:02}", f"i{item:02}", kind, time_ms) for item in items]
    return pl.DataFrame(rows, schema=list(COLUMNS), orient="row")


class Tables(Source):
    """Tables in memory, whose shards are visitors by the end of their id."""

    def __init__(self) -> None:
        super().__init__("", "", "", False, "", {}, "", "", 0, "UTC", "")

    def shard(self, number: int, count: int) -> Dataset:
        return Dataset.from_frames(lines().filter(pl.col("visitor_id").str.slice(1).cast(pl.Int64) % count == number))

    def catalogue(self) -> list[str]:
        return CATALOGUE


class Here:
    """Workers that work at once, in this process."""

    def run(self, work, *arguments):
        return work(*arguments)

    def result(self, promise):
        return promise

    def results(self, promises, done):
        done(1.0)
        return list(promises)


def whole() -> Dataset:
    return Dataset.from_frames(lines(), pl.DataFrame({"item_id": CATALOGUE}))


@pytest.mark.parametrize("count", [1, 3, 60], ids=lambda count: f"{count} shards")
@pytest.mark.parametrize("at_once", [1, 200, 10**9], ids=lambda pairs: f"{pairs} pairs at once")
@pytest.mark.parametrize("kind", [AlsoViewed, AlsoBought, BoughtTogether, ItemKnn], ids=lambda kind: kind.__name__)
def test_neighbours_are_those_of_one_process(kind, at_once, count, monkeypatch):
    monkeypatch.setattr(counting, "PAIRS_AT_ONCE", at_once)
    for measure in ("cosine", "jaccard"):
        alone = kind(measure=measure, k=7).fit(whole())
        shards = Shards.read(Tables(), count, Here(), lambda _: None)
        among = kind(measure=measure, k=7)
        shards.fit_neighbours(among, lambda _: None)
        same(among, alone)


@pytest.mark.parametrize("count", [1, 3, 60], ids=lambda count: f"{count} shards")
@pytest.mark.parametrize("model", [TifuKnn(k=5), UserToUser(k=4)], ids=["own", "others"])
def test_lists_of_visitors_are_those_of_one_process(model, count):
    alone = model.fit(whole()).tensors()
    shards = Shards.read(Tables(), count, Here(), lambda _: None)
    shares = []
    shards.fit_lists(model, shares.append)
    assert shares[-1] == 1.0
    for name, tensors in model.tensors().items():
        for tensor, values in tensors.items():
            assert values.tobytes() == alone[name][tensor].tobytes()


def same(among, alone):
    for name in ("offsets_", "neighbours_", "scores_"):
        one, other = getattr(among, name), getattr(alone, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), name


def test_tables_and_facts_are_those_of_all_lines():
    shards = Shards.read(Tables(), 4, Here(), lambda _: None)
    assert (shards.visitors, shards.items) == (whole().visitors, whole().items)
    assert shards.facts() == whole().facts()
    assert shards.have(("view",))
    assert not shards.have(("add_to_cart",))


def test_measures_that_need_the_rows_are_refused():
    shards = Shards.read(Tables(), 2, Here(), lambda _: None)
    with pytest.raises(ValueError, match="needs more than counts of pairs; take cosine"):
        shards.fit_neighbours(AlsoBought(measure="tf_idf"), lambda _: None)


def test_empty_tables_are_told(monkeypatch):
    empty = Dataset.from_frames(lines().clear())
    monkeypatch.setattr(Tables, "shard", lambda *_: empty)
    with pytest.raises(ValueError, match="hold no event with an item"):
        Shards.read(Tables(), 2, Here(), lambda _: None)


MEET = """
import sys, time
from pathlib import Path
from trainers.shards.workers import workers

def meet(folder, mine, other):
    (folder / mine).touch()
    deadline = time.monotonic() + 60
    while not (folder / other).exists():
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.01)
    return mine

def louder(text):
    return text.upper()

def fail():
    raise ConnectionError("no tables")

with workers(2) as group:
    promises = [group.run(meet, Path(sys.argv[1]), *names) for names in ("ab", "ba")]
    assert group.results(promises, lambda _: None) == ["a", "b"]
    assert group.result(group.run(louder, promises[0])) == "A"
    try:
        group.result(group.run(fail))
    except ConnectionError as error:
        assert str(error) == "no tables"
    else:
        sys.exit("no fault")
"""


def test_two_processes_work_at_once_and_faults_come_back(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", MEET, str(tmp_path)], cwd=ROOT, env=environment, check=True, timeout=200)


@pytest.mark.parametrize(
    ("address", "fault", "told"),
    [
        (
            "host:1",
            ConnectionError("no cluster"),
            r"Ray at host:1 cannot be used \(no cluster\); run this on one of its",
        ),
        ("", Exception("timed out"), r"Ray at this machine cannot be used \(timed out\); look at its memory"),
    ],
    ids=["a cluster", "this machine"],
)
def test_a_ray_that_cannot_be_used_is_told(monkeypatch, address, fault, told):
    def refuse(**_):
        raise fault

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConnectionError, match=told):
        workers(1, address).__enter__()


def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with (
        pytest.raises(MissingRayError, match=r"install it with `pip install 'shopkeeper\[ray\]'`"),
        workers(2),
    ):
        pass


def test_a_ranker_is_taken_as_it_is(tmp_path):
    folder = tmp_path / BundleMaker(tmp_path).make("one")
    copied = CopiedRanking(folder)
    assert copied.manifest()["actions"]
    (tmp_path / "new").mkdir()
    copied.write(tmp_path / "new")
    for name in ("ranker.onnx", "golden.safetensors"):
        assert (tmp_path / "new" / name).read_bytes() == (folder / name).read_bytes()
    assert load_file(tmp_path / "new" / "golden.safetensors")["features"].size


def test_a_bundle_without_a_fit_ranker_is_named(tmp_path):
    maker = BundleMaker(tmp_path)
    with pytest.raises(ValueError, match="reads other features; train it again"):
        CopiedRanking(tmp_path / maker.make("old", manifest={"schema_hash": "0"})).manifest()
    with pytest.raises(FileNotFoundError, match="name the folder of a bundle"):
        CopiedRanking(tmp_path / "nowhere").manifest()
