"""Every estimator of the package keeps the same promises."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import trainers
from trainers.base import Estimator, NotFittedError, Trainer
from trainers.dataset import ACTIONS as NUMBERS
from trainers.dataset import Dataset
from trainers.item_to_item import ItemKnn
from trainers.recommender import NOBODY, Queries, Recommender

ACTIONS = ("view", "click", "add_to_cart", "purchase")
N_ITEMS = 30


def every_estimator() -> Iterator[type[Estimator]]:
    for module in pkgutil.walk_packages(trainers.__path__, "trainers."):
        if module.name.endswith("__main__"):
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(found, Estimator) and not inspect.isabstract(found) and found.__module__ == module.name:
                yield found


ESTIMATORS = sorted(every_estimator(), key=lambda found: found.__name__)
TRAINERS = [found for found in ESTIMATORS if issubclass(found, Trainer)]
RECOMMENDERS = [found for found in ESTIMATORS if issubclass(found, Recommender)]
DRAWING = {"Als", "LsaVectors", "Random", "Gru4Rec", "SequentialRules", "GraphFilter", "SasRec"}
each_estimator = pytest.mark.parametrize("found", ESTIMATORS, ids=lambda found: found.__name__)
each_recommender = pytest.mark.parametrize("found", RECOMMENDERS, ids=lambda found: found.__name__)
each_trainer = pytest.mark.parametrize("found", TRAINERS, ids=lambda found: found.__name__)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(7)
    n_events = 600
    return Dataset.from_frames(
        pl.DataFrame(
            {
                "event_id": [f"e{n // 3}" for n in range(n_events)],
                "visitor_id": [f"v{n // 3 % 25:02}" for n in range(n_events)],
                "item_id": [f"i{n:02}" for n in np.minimum(random.geometric(0.1, n_events), N_ITEMS) - 1],
                "event_type": [ACTIONS[n // 3 % len(ACTIONS)] for n in range(n_events)],
                "time_ms": [1_700_000_000_000 + n // 3 * 3_600_000 for n in range(n_events)],
            }
        )
    )


def test_estimators_are_found() -> None:
    names = {found.__name__ for found in TRAINERS}
    assert {"AlsoViewed", "AlsoBought", "BoughtTogether", "LsaVectors", "TifuKnn", "Popular"} <= names
    assert not {"Als", "Ease", "ItemKnn", "SequentialRules"} & names
    scoring = {found.__name__ for found in RECOMMENDERS}
    assert {
        "AlsoViewed",
        "Als",
        "Blend",
        "Content",
        "Ease",
        "SequenceKnn",
        "ItemKnn",
        "GraphFilter",
        "Trend",
    } <= scoring
    assert {"Gru4Rec", "SasRec"} <= scoring
    assert {"Random", "MostPopular", "HistoryPopular"} <= scoring


@each_estimator
def test_init_takes_keywords_and_only_keeps_them(found: type[Estimator]) -> None:
    parameters = inspect.signature(found).parameters.values()
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters)
    assert vars(found()) == {parameter.name: parameter.default for parameter in parameters}
    assert ("seed" in inspect.signature(found).parameters) == (found.__name__ in DRAWING)


@each_recommender
def test_equal_fits_give_equal_scores(found: type[Recommender], dataset: Dataset, queries: Queries) -> None:
    shares: list[float] = []
    first = found().fit(dataset, shares.append).score(queries)
    assert first.tobytes() == found().fit(dataset).score(queries).tobytes()
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


@each_trainer
def test_equal_fits_give_equal_bytes(found: type[Trainer], dataset: Dataset, tmp_path: Path) -> None:
    first = found().fit(dataset).export(tmp_path / "first")
    second = found().fit(dataset).export(tmp_path / "second")
    assert first.files
    assert first.files == second.files == tuple(sorted(path.name for path in (tmp_path / "first").iterdir()))
    for name in first.files:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


@each_estimator
def test_fit_returns_itself_and_marks_what_it_learnt(found: type[Estimator], dataset: Dataset) -> None:
    model = found()
    before = set(vars(model))
    assert model.fit(dataset) is model
    learnt = set(vars(model)) - before
    assert learnt
    assert all(name.endswith("_") for name in learnt)


@each_trainer
def test_export_before_fit_says_so_and_writes_nothing(found: type[Trainer], tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=f"{found.__name__} has learnt nothing yet; call `fit` first"):
        found().export(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@each_estimator
def test_empty_data_are_refused(found: type[Estimator], dataset: Dataset) -> None:
    with pytest.raises(ValueError, match=r"the data hold no .* row"):
        found().fit(dataset.before(0))


@each_trainer
def test_exported_lists_are_in_range_sorted_and_finite(found: type[Trainer], dataset: Dataset, tmp_path: Path) -> None:
    artifact = found().fit(dataset).export(tmp_path)
    for name in artifact.files:
        tensors = load_file(artifact.folder / name) if name.endswith(".safetensors") else {}
        if "scores" not in tensors:
            continue
        items, scores = tensors.get("neighbours", tensors.get("items")), tensors["scores"]
        assert items is not None
        assert items.dtype == np.uint32
        assert scores.dtype == np.float32
        assert len(items) == len(scores) > 0
        assert items.max() < dataset.n_items
        assert np.isfinite(scores).all()
        assert (scores > 0).all()
        offsets = tensors.get("offsets", np.array([0, len(items)]))
        assert offsets[0] == 0
        assert offsets[-1] == len(items)
        for number, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
            ranked = list(zip((-scores[start:end]).tolist(), items[start:end].tolist(), strict=True))
            assert ranked == sorted(ranked)
            assert len(set(items[start:end].tolist())) == end - start
            assert "neighbours" not in tensors or number not in items[start:end]


def queries_of(histories: list[list[int]], n_items: int) -> Queries:
    items = [item for history in histories for item in history]
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    return Queries(
        visitor=np.where(np.arange(len(histories)) % 2, NOBODY, np.arange(len(histories))).astype(np.uint32),
        offsets=offsets,
        item=np.array(items, np.uint32),
        action=np.full(len(items), NUMBERS["view"], np.uint8),
        time_ms=1_700_000_000_000 + np.arange(len(items), dtype=np.int64) * 60_000,
        n_items=n_items,
    )


@pytest.fixture(scope="module")
def queries(dataset: Dataset) -> Queries:
    return queries_of([[0, 3, 5], [], [2], [7, 7, 1, 0, 4], [dataset.n_items - 1]], dataset.n_items)


@each_recommender
def test_every_item_gets_a_score_for_every_history(
    found: type[Recommender], dataset: Dataset, queries: Queries
) -> None:
    scores = found().fit(dataset).score(queries)
    assert scores.shape == (len(queries), dataset.n_items)
    assert scores.dtype == np.float32
    assert (np.isfinite(scores) | np.isneginf(scores)).all()
    assert scores.flags.writeable


@each_recommender
def test_a_score_depends_on_its_own_history_only(found: type[Recommender], dataset: Dataset, queries: Queries) -> None:
    model = found().fit(dataset)
    together = model.score(queries)
    alone = [model.score(queries.batch(number, number + 1))[0] for number in range(len(queries))]
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-5, atol=1e-5)
    assert model.score(queries.batch(0, 0)).shape == (0, dataset.n_items)


@each_recommender
def test_score_before_fit_says_so(found: type[Recommender], queries: Queries) -> None:
    with pytest.raises(NotFittedError, match=f"{found.__name__} has learnt nothing yet; call `fit` first"):
        found().score(queries)


def test_the_best_items_come_with_their_scores(dataset: Dataset, queries: Queries) -> None:
    model = ItemKnn().fit(dataset)
    all_scores = model.score(queries)
    items, scores = model.recommend(queries, k=4)
    assert items.shape == scores.shape == (len(queries), 4)
    assert (items.dtype, scores.dtype) == (np.uint32, np.float32)
    for row, own in enumerate(all_scores.tolist()):
        expected = sorted(range(dataset.n_items), key=lambda item: (-own[item], item))[:4]
        assert items[row].tolist() == expected
        assert scores[row].tolist() == [own[item] for item in expected]
    assert model.recommend(queries, k=10**6)[0].shape == (len(queries), dataset.n_items)
    with pytest.raises(ValueError, match="k is 0; give a positive number of items"):
        model.recommend(queries, k=0)


@each_recommender
def test_a_recommender_shows_its_use(found: type[Recommender]) -> None:
    assert ">>>" in (found.__doc__ or "")


def test_steps_of_a_history_are_its_moments() -> None:
    queries = queries_of([[1, 2, 3], [4], [5, 6]], 9)
    queries.time_ms[:2] = queries.time_ms[0]
    assert queries.age.tolist() == [1, 1, 0, 0, 1, 0]
    assert queries.recency(0.5, 1).tolist() == [0, 0, 1, 1, 0, 1]
