"""The ranker of trees: what it learns, that its graph answers the same, and that its probabilities are what happens."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

import core_rs
from server.bundle_check import check
from tests.walking_shop import walks
from trainers.base import NotFittedError
from trainers.bundle import FittedRanking, ManifestFacts, write_bundle
from trainers.calibration import Calibration, expected_error
from trainers.network_ranker import NetworkRanker
from trainers.ranker import Rows
from trainers.tree_graph import rounded_down
from trainers.tree_ranker import TreeRanker

WIDTH = len(core_rs.feature_names())
ACTIONS = ("purchase", "view")
finite = st.floats(allow_nan=False, allow_infinity=False)


def logits(features: np.ndarray) -> np.ndarray:
    return np.stack([features[:, 0] * 2 - 1, np.where(features[:, 1] > 0, features[:, 2] * 2, -1)], axis=1).astype(
        np.float64
    )


def rows(count: int = 6_000, seed: int = 0) -> Rows:
    """Return candidates whose features are steps of a quarter, so that many lie on a threshold."""
    rng = np.random.default_rng(seed)
    features = np.round(rng.normal(size=(count, WIDTH)) * 4).astype(np.float32) / 4
    features[:, 7] = 3.1
    labels = rng.random((count, 2)) < expit(logits(features))
    weights, each = np.ones(labels.shape, np.float32), np.arange(count, dtype=np.uint32)
    return Rows(features, labels, weights, np.zeros(count, np.int32), each)


def shown_rows(count: int = 20_000, seed: int = 0) -> Rows:
    """Return candidates that old slates put the lower the better they are, and that are chosen where they are seen."""
    rng = np.random.default_rng(seed)
    features = np.zeros((count, WIDTH), np.float32)
    features[:, :2] = rng.normal(size=(count, 2))
    positions = np.clip(np.round(8 + 3 * features[:, 0] + rng.normal(scale=3, size=count)), 1, 40).astype(np.int32)
    probabilities = expit(features[:, 0].astype(np.float64)) / positions
    labels, weights = (rng.random(count) < probabilities)[:, None], np.ones((count, 1), np.float32)
    return Rows(features, labels, weights, positions, np.arange(count, dtype=np.uint32))


@pytest.fixture(scope="module")
def ranker() -> TreeRanker:
    return TreeRanker(trees=60, learning_rate=0.1, least_rows=30).fit(rows())


def test_it_learns_probabilities_of_several_actions_and_that_two_features_meet(ranker):
    fresh = rows(seed=9)
    found = ranker.predict(fresh.features)
    assert found.dtype == np.float32
    plain = np.abs(rows().labels.mean(axis=0) - expit(logits(fresh.features))).mean(axis=0)
    assert (np.abs(found - expit(logits(fresh.features))).mean(axis=0) < 0.6 * plain).all()


def test_graph_and_compiled_trees_answer_what_the_ranker_predicts(ranker, tmp_path):
    features = np.concatenate([rows(900, 4).features, np.random.default_rng(5).normal(size=(123, WIDTH)) * 50])
    features = features.astype(np.float32)
    expected = ranker.predict(features)
    session = ort.InferenceSession(ranker.graph().SerializeToString(), providers=["CPUExecutionProvider"])
    (answered,) = session.run(["actions"], {"features": features})
    folder = write_bundle(tmp_path, ManifestFacts("one", 1, ACTIONS), walks(), [], FittedRanking(ranker, features[:20]))
    check(folder)
    compiled = core_rs.Engine().load_bundle(str(folder)).score(features)
    assert np.ptp(expected, axis=0).min() > 0.5
    assert np.abs(answered - expected).max() <= 1e-5
    assert compiled is not None
    assert np.abs(compiled - expected).max() <= 1e-5


@given(finite | st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-2, 2))
def test_a_rounded_threshold_sends_32_bit_values_the_same_way(threshold, steps):
    greatest = float(np.finfo(np.float32).max)
    value = np.float32(np.clip(threshold, -greatest, greatest))
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(greatest, steps)))
    if -greatest <= threshold <= greatest:
        assert (float(value) <= threshold) == (float(value) <= rounded_down(threshold))
    assert np.isfinite(rounded_down(threshold))


@pytest.mark.parametrize("kind", [TreeRanker, NetworkRanker])
def test_where_an_item_was_shown_does_not_speak_for_it(kind):
    data, fresh = shown_rows(), shown_rows(seed=1)
    aware = kind().fit(data).predict(fresh.features)[:, 0]
    blind = kind().fit(replace(data, positions=np.zeros_like(data.positions))).predict(fresh.features)[:, 0]
    truth = fresh.features[:, 0]
    known, taken = (np.corrcoef(found, truth)[0, 1] for found in (aware, blind))
    assert known > 0.6
    assert taken < 0.2


@pytest.mark.parametrize("kind", [TreeRanker, NetworkRanker])
def test_graph_and_prediction_are_of_the_exposure_that_is_served(kind):
    ranker = kind().fit(shown_rows())
    features = shown_rows(500, 3).features
    session = ort.InferenceSession(ranker.graph().SerializeToString(), providers=["CPUExecutionProvider"])
    (answered,) = session.run(["actions"], {"features": features})
    assert session.get_inputs()[0].shape[1] == WIDTH
    assert np.abs(answered - ranker.predict(features)).max() <= 1e-5


@pytest.mark.parametrize(
    "ranker",
    [TreeRanker(trees=60, learning_rate=0.1, least_rows=30), NetworkRanker(epochs=6)],
    ids=["trees", "network"],
)
def test_probabilities_are_calibrated_on_rows_that_the_ranker_did_not_see(ranker):
    data = rows(20_000)
    probabilities = expit(logits(data.features))
    others = np.arange(len(data)) % 10 == 0
    probabilities[others] **= 3
    labels = np.random.default_rng(2).random(probabilities.shape) < probabilities
    visitors = np.where(others, np.arange(len(data)) // 10 * 20, 1).astype(np.uint32)
    ranker.fit(replace(data, labels=labels, visitors=visitors))
    named = ranker.metrics(ACTIONS)
    assert set(named) == {f"{action}/calibration_error_{when}" for action in ACTIONS for when in ("before", "after")}
    for action in ACTIONS:
        before, after = (named[f"{action}/calibration_error_{when}"] for when in ("before", "after"))
        assert after.value < before.value / 2
        assert 0 <= after.low <= after.value <= after.high < before.low
    assert all(calibration.offset < 0 for calibration in ranker.calibrations_)
    session = ort.InferenceSession(ranker.graph().SerializeToString(), providers=["CPUExecutionProvider"])
    (answered,) = session.run(["actions"], {"features": data.features})
    assert np.abs(answered - ranker.predict(data.features)).max() <= 1e-5


def test_rows_that_say_nothing_about_an_action_do_not_teach_it():
    data = rows(20_000)
    silent = np.arange(len(data)) % 3 == 0
    weights, labels = np.ones_like(data.weights), data.labels.copy()
    weights[silent, 0], labels[silent, 0] = 0, False
    number = np.arange(len(data))
    visitors = np.where(number % 5 == 1, number // 5 * 20, 1).astype(np.uint32)
    for ranker in (TreeRanker(trees=60, learning_rate=0.1, least_rows=30), NetworkRanker(epochs=6)):
        ranker.fit(replace(data, labels=labels, weights=weights, visitors=visitors))
        probabilities = ranker.predict(data.features)[:, 0].mean()
        assert probabilities == pytest.approx(expit(logits(data.features))[:, 0].mean(), abs=0.03)
        assert ranker.metrics(ACTIONS)["purchase/calibration_error_after"].value < 0.1


def test_calibration_finds_the_two_numbers_and_leaves_alone_what_tells_nothing():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40_000)
    labels = rng.random(len(scores)) < expit(0.5 * scores - 2)
    ones = np.ones(len(scores), np.float32)
    found = Calibration.fit(scores, labels, ones)
    assert (found.slope, found.offset) == pytest.approx((0.5, -2), abs=0.05)
    kept = rng.random(len(scores)) < np.where(labels, 1, 0.2)
    weights = np.where(labels, 1, 5)[kept].astype(np.float32)
    sampled = Calibration.fit(scores[kept], labels[kept], weights)
    assert (sampled.slope, sampled.offset) == pytest.approx((0.5, -2), abs=0.05)
    for nothing in (np.zeros_like(labels), np.ones_like(labels), scores < 0):
        assert Calibration.fit(scores, nothing, ones) == Calibration()
    alone = scores == scores.max()
    assert expit(Calibration.fit(scores, alone, ones).logits(scores)).max() < 0.9


def test_the_expected_error_is_the_distance_of_what_is_said_from_what_happens():
    rng = np.random.default_rng(3)
    probabilities = rng.random(20_000)
    labels = rng.random(len(probabilities)) < probabilities
    ones, each = np.ones(len(probabilities), np.float32), np.arange(len(probabilities), dtype=np.uint32)
    assert expected_error(probabilities, labels, ones, each, 0).value < 0.02
    far = expected_error(probabilities / 2, labels, ones, each, 0)
    assert far.value == pytest.approx(0.25, abs=0.01)
    assert far.low < far.value < far.high


def test_rows_of_one_visitor_do_not_narrow_the_interval_of_the_error():
    rng = np.random.default_rng(3)
    probabilities = rng.random(2_000)
    labels, ones = rng.random(len(probabilities)) < probabilities, np.ones(len(probabilities), np.float32)
    alone = expected_error(probabilities / 2, labels, ones, np.arange(len(probabilities), dtype=np.uint32), 0)
    many = [
        np.repeat(column, 25)
        for column in (probabilities / 2, labels, ones, np.arange(len(probabilities), dtype=np.uint32))
    ]
    twins = expected_error(*many, 0)
    assert twins.value == pytest.approx(alone.value, abs=0.01)
    assert twins.high - twins.low == pytest.approx(alone.high - alone.low, rel=0.3)


class Watched(NetworkRanker):
    """Ranker that keeps what it learns from, and tells scores by the first feature alone."""

    def _learn(self, rows, _progress):
        self.learnt = rows

    def _logits(self, features, _exposure):
        return features[:, :2].astype(np.float64)


def visited_rows(positives: int, visitors: int = 400) -> Rows:
    """Return a hundred rows of each visitor, of which each action followed the first `positives`, by feature 0."""
    who = np.repeat(np.arange(visitors, dtype=np.uint32), 100)
    labels = np.tile(np.arange(100) < positives, visitors)[:, None] & np.array([True, False])
    labels[:, 1] = np.arange(len(who)) % 2 == 0
    ones = np.ones(labels.shape, np.float32)
    return Rows(np.zeros((len(who), 2), np.float32), labels, ones, np.zeros(len(who), np.int32), who)


def test_held_out_visitors_are_not_learnt_from_and_none_is_in_both_halves(monkeypatch):
    halves = []
    monkeypatch.setattr(
        "trainers.calibration.Calibration.fit", lambda scores, *_: halves.append(scores) or Calibration()
    )
    measured = []
    monkeypatch.setattr("trainers.ranker.expected_error", lambda *known: measured.append(known[3]))
    data = visited_rows(50)
    data.features[:, 0] = data.visitors
    ranker = Watched().fit(data)
    held = set(range(0, 400, 20))
    assert set(ranker.learnt.visitors.tolist()) == set(range(400)) - held
    fitted, rest = set(halves[0].astype(int).tolist()), set(measured[0].tolist())
    assert fitted | rest == held
    assert not fitted & rest


@pytest.mark.parametrize(
    ("positives", "calibrated"), [(9, {"view"}), (10, set(ACTIONS)), (90, set(ACTIONS)), (91, {"view"})]
)
def test_an_action_of_few_outcomes_in_a_half_is_not_calibrated_and_has_no_error(positives, calibrated):
    ranker = Watched().fit(visited_rows(positives))
    assert {name.partition("/")[0] for name in ranker.metrics(ACTIONS)} == calibrated
    assert (ranker.calibrations_[0] == Calibration()) == ("purchase" not in calibrated)


def test_a_half_of_few_rows_calibrates_nothing():
    data = visited_rows(50)
    few = data.part((np.arange(len(data)) % 100 > 0) | (data.visitors > 0))
    assert Watched().fit(few).metrics(ACTIONS) == {}


def test_rows_of_some_actions_ask_for_these():
    data = rows(4)
    weights = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    kept = replace(data, weights=weights).of_actions(np.array([True, False]))
    assert kept.weights.tolist() == [[1], [1]]
    np.testing.assert_array_equal(kept.labels, data.labels[[0, 2], :1])
    np.testing.assert_array_equal(kept.features, data.features[[0, 2]])


def test_same_seed_same_graph_and_another_order_of_features_another():
    first, again = (TreeRanker(trees=5, seed=1).fit(rows(1_000)).graph().SerializeToString() for _ in range(2))
    assert first == again


def test_columns_that_it_must_not_read_have_no_say():
    ranker = TreeRanker(trees=20, without=(0,)).fit(rows())
    features = rows(50).features
    moved = features.copy()
    moved[:, 0] += 3
    np.testing.assert_array_equal(ranker.predict(features), ranker.predict(moved))


def test_weights_count_as_repeats_of_a_row():
    data = rows()
    heavy = np.where(data.labels[:, :1], 5.0, 1.0).astype(np.float32) * data.weights
    weighted = (
        TreeRanker(trees=20, learning_rate=0.1).fit(replace(data, weights=heavy)).predict(data.features)[:, 0].mean()
    )
    assert weighted > TreeRanker(trees=20, learning_rate=0.1).fit(data).predict(data.features)[:, 0].mean() + 0.15


def test_progress_ends_at_one_and_too_few_rows_are_not_calibrated():
    shares: list[float] = []
    data = rows(400)
    late = replace(data, labels=np.arange(400)[:, None] >= np.array([380, 360]))
    ranker = TreeRanker(trees=3).fit(late, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert ranker.metrics(ACTIONS) == {}


def test_an_action_without_both_outcomes_is_refused():
    with pytest.raises(ValueError, match="leave out actions without both outcomes"):
        TreeRanker().fit(replace(rows(500), labels=np.ones((500, 2), np.bool_)))
    with pytest.raises(NotFittedError, match="TreeRanker has learnt nothing yet; call `fit` first"):
        TreeRanker().graph()
