"""A new bundle serves only where it is not worse than the one before, and only where that can be said."""

import numpy as np

from trainers.evaluate import Measured
from trainers.gate import LEAST_VISITORS, MEASURE, compare, facts


def measured(values):
    return Measured({MEASURE: np.asarray(values, np.float64)}, left_out=0, recall=np.zeros(50))


def scores(count=2_000, seed=1):
    return np.random.default_rng(seed).beta(1, 3, count)


def test_the_same_model_passes_without_a_difference():
    verdict = compare(measured(scores()), measured(scores()), 0.0, seed=0)
    assert verdict.passed
    assert (verdict.low, verdict.high, verdict.new) == (0.0, 0.0, verdict.old)


def test_a_worse_model_does_not_pass_and_the_interval_says_so():
    old = scores()
    verdict = compare(measured(old * 0.9), measured(old), 0.02, seed=0)
    assert not verdict.passed
    assert verdict.low < verdict.high < 0
    assert compare(measured(old * 0.9), measured(old), 0.2, seed=0).passed


def test_noise_that_may_hide_a_loss_does_not_pass():
    old = scores()
    noisy = old + np.random.default_rng(2).normal(0, 0.5, len(old))
    few = compare(measured(noisy[:200]), measured(old[:200]), 0.02, seed=0)
    assert not few.passed
    assert few.low < 0 < few.high


def test_too_few_visitors_decide_nothing():
    for count in (0, LEAST_VISITORS - 1):
        verdict = compare(measured(scores(count) + 1), measured(scores(count)), 0.02, seed=0)
        assert not verdict.passed
        assert "wait for more" in verdict.why
        assert facts(verdict)["low"] is None


def test_the_interval_is_drawn_from_the_seed():
    pair = measured(scores()), measured(scores(seed=3))
    assert compare(*pair, 0.02, seed=1) == compare(*pair, 0.02, seed=1) != compare(*pair, 0.02, seed=2)
