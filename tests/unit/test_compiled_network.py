"""A network as the engine evaluates it: what onnxruntime answers, and each row by itself."""

from itertools import pairwise

import numpy as np
import pytest

import core_rs
from server.bundle_check import check
from server.graph_check import CheckError
from server.ranker import Ranker, open_session
from tests.walking_shop import walks
from trainers.bundle import FittedRanking, ManifestFacts, write_bundle
from trainers.calibration import Calibration
from trainers.network_ranker import NetworkRanker

WIDTH = len(core_rs.feature_names())
ACTIONS = ("purchase", "view", "add_to_cart")


def features(count, seed=0, scale=1.0):
    """Return rows of which whole columns are 0, as those of candidates are."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(scale=scale, size=(count, WIDTH))
    rows[:, rng.random(WIDTH) < 0.5] = 0
    rows[: count // 2, rng.random(WIDTH) < 0.5] = 0
    return rows.astype(np.float32)


def network(hidden, seed=0):
    """Return a ranker of random weights, which reads the exposure, too, and is calibrated."""
    rng = np.random.default_rng(seed)
    widths = (WIDTH + 1, *hidden, len(ACTIONS))
    ranker = NetworkRanker(hidden=hidden)
    ranker.layers_ = [
        (
            rng.normal(scale=before**-0.5, size=(before, after)).astype(np.float32),
            rng.normal(size=after).astype(np.float32),
        )
        for before, after in pairwise(widths)
    ]
    ranker.calibrations_ = [Calibration(0.8, -0.2), Calibration(1.2, 0.1), Calibration()]
    return ranker


def bundle_of(folder, ranker):
    return write_bundle(folder, ManifestFacts("one", 1, ACTIONS), walks(), [], FittedRanking(ranker, features(20)))


@pytest.mark.parametrize("hidden", [(48, 24), (32, 32), (13,), (), (5, 17, 9)])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_engine_answers_like_onnxruntime(tmp_path, hidden, scale):
    folder = bundle_of(tmp_path, network(hidden))
    check(folder)
    rows = features(1_003, 7, scale)
    (expected,) = open_session(folder / "ranker.onnx").run(["actions"], {"features": rows})
    found = core_rs.Engine().load_bundle(str(folder)).score(rows)
    assert found.shape == (1_003, len(ACTIONS))
    assert np.ptp(found) > 0.3
    assert np.abs(found - expected).max() < 1e-5


def test_a_score_does_not_depend_on_the_other_rows(tmp_path):
    bundle = core_rs.Engine().load_bundle(str(bundle_of(tmp_path, network((48, 24)))))
    rows = features(101, 3)
    together = bundle.score(rows)
    alone = np.concatenate([bundle.score(row[None]) for row in rows])
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[order], bundle.score(rows[order]))


def test_a_network_needs_no_session_and_a_missing_feature_is_seen(tmp_path):
    bundle = core_rs.Engine().load_bundle(str(bundle_of(tmp_path, network((48, 24)))))
    rows = features(9)
    actions, degraded = Ranker(None, bundle).score(rows)
    assert (actions.shape, degraded) == ((9, len(ACTIONS)), "")
    rows[4, 2] = np.nan
    assert Ranker(None, bundle).score(rows) == (None, "model_not_finite")


def test_a_large_network_is_left_to_onnxruntime(tmp_path):
    assert core_rs.Engine().load_bundle(str(bundle_of(tmp_path, network((400, 200))))).score(features(5)) is None


def test_an_engine_that_answers_otherwise_is_found_before_it_serves(tmp_path, monkeypatch):
    folder = bundle_of(tmp_path, network((48, 24)))
    answers = core_rs.Engine().load_bundle(str(folder))

    class Wrong:
        def __init__(self, **_):
            pass

        def load_bundle(self, _):
            return self

        def score(self, rows):
            return answers.score(rows) + np.float32(2e-5)

    monkeypatch.setattr(core_rs, "Engine", Wrong)
    with pytest.raises(CheckError, match="differs from what the engine makes of it"):
        check(folder)
