"""The sequence models: what an encoder may read, its loss, what it learns, its ONNX graph, several processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from tests.walking_shop import N_ITEMS, STRIDE, walks
from trainers.__main__ import app
from trainers.gru4rec import Gru4Rec
from trainers.recommender import NOBODY, Queries
from trainers.sasrec import SasRec
from trainers.sequence.encoder import SHARPNESS
from trainers.sequence.histories import Histories, Inputs
from trainers.sequence.learning import TrainingData
from trainers.sequence.model import GOLDEN_FILE, GRAPH_FILE, ITEMS_FILE, SequenceModel
from trainers.sequence.settings import Training
from trainers.sequence.softmax import Proposal, cross_entropy

ROOT = Path(__file__).parents[2]
LENGTH = 8
QUICK = Training(window=LENGTH, learning_rate=1e-2, epochs=15, batch_targets=256)
each_model = pytest.mark.parametrize("kind", [SasRec, Gru4Rec], ids=lambda kind: kind.__name__)


def asked(*histories: list[int]) -> Queries:
    offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], np.uint32)
    views = np.full(len(items), 2, np.uint8)
    times = 1_700_000_000_000 + 60_000 * np.arange(len(items))
    return Queries(np.full(len(histories), NOBODY), offsets, items, views, times, N_ITEMS)


@pytest.fixture(scope="module")
def fitted() -> dict[type[SequenceModel], SequenceModel]:
    return {kind: kind(dropout=0.1, training=QUICK).fit(walks()) for kind in (SasRec, Gru4Rec)}


@pytest.fixture(scope="module")
def exported(fitted, tmp_path_factory) -> dict[type[SequenceModel], Path]:
    return {kind: model.export(tmp_path_factory.mktemp("bundle")).folder for kind, model in fitted.items()}


@each_model
def test_it_learns_an_order_far_above_popularity(kind, fitted):
    histories = [[(start + STRIDE * step) % N_ITEMS for step in range(3)] for start in range(N_ITEMS)]
    best = fitted[kind].score(asked(*histories)).argmax(axis=1)
    hits = np.mean(best == (np.arange(N_ITEMS) + 3 * STRIDE) % N_ITEMS)
    assert hits > 0.8


@each_model
def test_a_later_event_never_changes_an_earlier_vector(kind, fitted):
    encoder = fitted[kind].encoder_
    rng = np.random.default_rng(0)
    items, actions = rng.integers(1, N_ITEMS, (4, LENGTH)), rng.integers(1, 5, (4, LENGTH))
    gaps = rng.integers(0, 10**8, (4, LENGTH))
    changed = [part.copy() for part in (items, actions, gaps)]
    for part in changed:
        part[:, 5:] = part[::-1, 5:] + 1
    with torch.no_grad():
        before = encoder(*(torch.from_numpy(part) for part in (items, actions, gaps)))
        after = encoder(*(torch.from_numpy(part) for part in changed))
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-6)
    assert (before[:, 5:] - after[:, 5:]).abs().amax() > 0.1


@each_model
def test_padding_does_not_matter(kind, fitted):
    encoder = fitted[kind].encoder_
    row = np.array([[3, 8, 13]])
    padded = np.pad(row, ((0, 0), (0, LENGTH - 3)))
    alone, amid = (encoder.answer(Inputs(items, items * 0 + 2, items * 0)) for items in (row, padded))
    np.testing.assert_allclose(alone, amid, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone), SHARPNESS, rtol=1e-5)


@each_model
def test_a_score_depends_on_its_own_last_events_only(kind, fitted):
    model = fitted[kind]
    long = [int(item) for item in np.random.default_rng(1).integers(0, N_ITEMS, 3 * LENGTH)]
    together = model.score(asked([1, 6], long, []))
    np.testing.assert_allclose(together[0], model.score(asked([1, 6]))[0], atol=1e-4)
    np.testing.assert_allclose(together[1], model.score(asked(long[-LENGTH:]))[0], atol=1e-4)
    assert not together[2].any()


@each_model
def test_event_type_and_time_are_read(kind, fitted):
    encoder = fitted[kind].encoder_
    items = np.array([[3, 8, 13]])
    views, soon = np.full_like(items, 2), np.full_like(items, 60_000)
    plain = encoder.answer(Inputs(items, views, soon))
    assert np.abs(plain - encoder.answer(Inputs(items, views + 3, soon))).max() > 1e-3
    assert np.abs(plain - encoder.answer(Inputs(items, views, soon * 10_000))).max() > 1e-3


@each_model
def test_onnx_answers_as_torch_does(kind, fitted, exported):
    folder = exported[kind]
    session = ort.InferenceSession(folder / GRAPH_FILE, providers=["CPUExecutionProvider"])
    golden = load_file(folder / GOLDEN_FILE)
    inputs = {name: golden[name] for name in ("items", "actions", "gaps")}
    (vector,) = session.run(["vector"], inputs)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector, golden["vector"], atol=1e-5)
    assert not golden["vector"][0].any()
    few = {name: values[:3, : LENGTH // 2] for name, values in inputs.items()}
    np.testing.assert_allclose(session.run(["vector"], few)[0], golden["vector"][:3], atol=1e-5)

    vectors = load_file(folder / ITEMS_FILE)["vectors"]
    assert vectors.shape == (N_ITEMS, fitted[kind].n_factors)
    rows = {"items": np.array([[2, 7]]), "actions": np.full((1, 2), 2), "gaps": np.array([[0, 60_000]])}
    scores = session.run(["vector"], rows)[0] @ vectors.T
    np.testing.assert_allclose(scores, fitted[kind].score(asked([1, 6])), atol=1e-4)


@each_model
def test_an_item_that_was_never_seen_reads_as_unknown(kind):
    shop = walks()
    model = kind(training=Training(window=LENGTH, epochs=1)).fit(shop.where(shop.item != 7))
    unseen, unknown, beyond = (
        model.encoder_.answer(Inputs(np.array([[3, item]]), np.full((1, 2), 2), np.zeros((1, 2), np.int64)))
        for item in (8, N_ITEMS + 1, N_ITEMS + 900)
    )
    assert (unseen == unknown).all()
    assert (unknown == beyond).all()


def test_the_seed_decides_the_weights():
    few = Training(window=LENGTH, epochs=1)
    first, again, other = (SasRec(training=few, seed=seed).fit(walks()).encoder_ for seed in (0, 0, 1))
    assert all((one == two).all() for one, two in zip(first.parameters(), again.parameters(), strict=True))
    assert any((one != two).any() for one, two in zip(first.parameters(), other.parameters(), strict=True))


def test_learning_leaves_the_chance_threads_and_flags_of_torch_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    SasRec(training=Training(window=LENGTH, epochs=1)).fit(walks())
    assert (torch.rand(3) == wanted).all()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_log_q_correction_by_hand():
    states, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    negatives = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
    probability, draws = np.array([0.1, 0.4]), 2
    hits = torch.tensor([[False, False], [True, False]])
    loss = cross_entropy(
        states, targets, negatives, torch.tensor(np.log(draws * probability), dtype=torch.float32), hits
    )
    first = np.exp(2) / (np.exp(2) + np.exp(0) / 0.2 + np.exp(2) / 0.8)
    second = np.exp(1) / (np.exp(1) + np.exp(1) / 0.8)
    assert float(loss) == pytest.approx(-np.log(first) - np.log(second), rel=1e-6)


def test_the_sampled_sum_estimates_the_whole_one_without_bias():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=500) * 2
    proposal = Proposal.of_counts(rng.integers(0, 50, 500), 0.7)
    estimates = []
    for _ in range(400):
        negatives, log_expected = proposal.draw(64, rng)
        estimates.append(np.exp(scores[negatives.numpy()] - log_expected.numpy()).sum())
    assert np.mean(estimates) == pytest.approx(np.exp(scores).sum(), rel=0.03)


def test_few_items_are_all_negatives_once():
    negatives, log_expected = Proposal.of_counts(np.arange(5), 1.0).draw(5, np.random.default_rng(0))
    assert negatives.tolist() == [0, 1, 2, 3, 4]
    assert not log_expected.any()


def test_a_tenth_of_the_histories_is_held_out_and_not_learnt():
    rng = np.random.default_rng(0)
    histories = Histories.of_dataset(walks(), rng)
    data = TrainingData.of(histories, N_ITEMS, QUICK, rng)
    assert data.held_out.sum() == 16
    held = (histories.offsets[1:] - 1)[data.held_out]
    assert not np.isin(data.windows.stops, held).any()


def test_what_was_shown_teaches_nothing():
    shop = walks()
    shown = np.arange(len(shop)) % 3 == 1
    hasty = Training(window=LENGTH, epochs=1)
    history = asked([1, 2, 3])
    kinds = replace(shop, action=np.where(shown, 1, shop.action).astype(shop.action.dtype))
    without, beside = (SasRec(training=hasty).fit(data).score(history) for data in (shop.where(~shown), kinds))
    np.testing.assert_array_equal(without, beside)


def test_what_was_refused_is_read_and_is_no_target():
    shop = walks()
    refused = replace(shop, action=np.where(shop.item % 2 == 0, 9, shop.action).astype(shop.action.dtype))
    rng = np.random.default_rng(0)
    histories = Histories.of_dataset(refused, rng)
    data = TrainingData.of(histories, N_ITEMS, QUICK, rng)
    assert (histories.actions[(histories.offsets[1:] - 1)[data.held_out]] != 9).all()
    targets = histories.targets(data.windows.starts, data.windows.stops)
    assert set((targets[targets > 0] - 1) % 2) == {1}
    assert (targets > 0).any(axis=1).all()


def test_it_stops_when_the_held_out_events_are_predicted_no_better():
    shares: list[float] = []
    hasty = Training(window=LENGTH, learning_rate=1e-9, epochs=50, patience=2)
    SasRec(training=hasty).fit(walks(), shares.append)
    assert len(shares) < 30
    assert shares[-1] == 1.0


def test_visitors_of_one_event_teach_no_order():
    shop = walks()
    with pytest.raises(ValueError, match="no visitor with two events"):
        SasRec().fit(shop.where(np.diff(shop.visitor, prepend=np.uint32(NOBODY)) != 0))


@pytest.mark.parametrize("width", [40, 208])
def test_a_width_that_no_kernel_scans_is_refused(width):
    with pytest.raises(ValueError, match=f"n_factors is {width}"):
        SasRec(n_factors=width).fit(walks())


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"Gru4Rec needs PyTorch; install it with `pip install 'shopkeeper\[torch\]'`"):
        Gru4Rec().fit(walks())


def test_the_command_writes_what_it_says(tmp_path):
    rows = [(f"e{n:03}", f"v{n // 4:02}", f"i{n * 5 % 9}", "view", 1_700_000_000_000 + n * 60_000) for n in range(80)]
    columns = ["event_id", "visitor_id", "item_id", "event_type", "time_ms"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"item_id": [f"i{n}" for n in range(9)]}).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame({"payload": []}, schema={"payload": pl.String}).write_parquet(tmp_path / "placements.parquet")
    (tmp_path / "meta.json").write_text("{}")
    out = tmp_path / "out"
    command = ["sequence", "--export", str(tmp_path), "--out", str(out), "--model", "recurrent", "--json"]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    assert found.exit_code == 0
    assert json.loads(found.stdout) == {"folder": str(out), "files": sorted(path.name for path in out.iterdir())}
    assert (out / GRAPH_FILE).is_file()


SHARED = """
import os, sys
import numpy as np
from tests.walking_shop import walks
from trainers.sequence import encoder
from trainers.sequence.settings import Training
from trainers.sasrec import SasRec

encoder.UNKNOWN_SHARE = 0.0
for name in ("first", "again"):
    model = SasRec(dropout=0.0, training=Training(window=8, epochs=6)).fit(walks(60))
    np.save(f"{sys.argv[1]}/{name}{os.environ['RANK']}.npy", model.encoder_.table())
"""


def test_two_processes_of_torchrun_learn_what_one_does_and_the_same_again(tmp_path, monkeypatch):
    script = tmp_path / "shared.py"
    script.write_text(SHARED, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = subprocess.Popen([*launch, script, tmp_path], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    monkeypatch.setattr("trainers.sequence.encoder.UNKNOWN_SHARE", 0.0)
    begun, one = (
        SasRec(dropout=0.0, training=Training(window=8, epochs=epochs)).fit(walks(60)).encoder_.table()
        for epochs in (1, 6)
    )
    assert both.wait(250) == 0
    first, *others = (np.load(tmp_path / f"{name}{rank}.npy") for name in ("first", "again") for rank in range(2))
    assert all(first.tobytes() == other.tobytes() for other in others), "both ranks, and both times"
    np.testing.assert_allclose(first, one, atol=1e-3)
    assert np.abs(one - begun).max() > 1e-2
