"""The ranker's network: its gradient, its fit, and that the exported graph answers the same."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.base import NotFittedError
from trainers.network import Network, sigmoid
from trainers.network_ranker import NetworkRanker
from trainers.ranker import Ranker, Rows


def answers(ranker: Ranker, features: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(ranker.graph().SerializeToString(), providers=["CPUExecutionProvider"])
    (actions,) = session.run(["actions"], {"features": features})
    return actions


def rows(count: int = 4_000, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 5)).astype(np.float32) * [1, 10, 0.1, 1, 0] + [0, 100, 0, 0, 7]
    logits = np.stack([features[:, 0] * 2 - 1, (features[:, 1] - 100) / 5], axis=1)
    labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits))
    weights, each = np.ones(labels.shape, np.float32), np.arange(count, dtype=np.uint32)
    return Rows(features.astype(np.float32), labels, weights, np.zeros(count, np.int32), each)


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(1)
    network = Network((4, 3, 2), np.array([0.3, 0.6], np.float32), rng)
    inputs = rng.normal(size=(6, 4)).astype(np.float32)
    labels = (rng.random((6, 2)) < 0.5).astype(np.float32)
    importance = rng.random((6, 2)).astype(np.float32)

    def loss() -> float:
        probabilities = sigmoid(network.activations(inputs)[-1]).astype(np.float64)
        each = -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities))
        return float((importance * each).sum(axis=1).mean())

    for parameter, gradient in zip(network.parameters, network.gradients(inputs, labels, importance), strict=True):
        for place in np.ndindex(parameter.shape):
            kept = parameter[place]
            parameter[place] = kept + 1e-2
            above = loss()
            parameter[place] = kept - 1e-2
            below = loss()
            parameter[place] = kept
            assert (above - below) / 2e-2 == pytest.approx(gradient[place], abs=2e-3)


def test_it_learns_probabilities_of_several_actions():
    ranker = NetworkRanker(epochs=30, batch_size=256).fit(rows(10_000))
    fresh = rows(seed=9)
    truth = np.stack([fresh.features[:, 0] * 2 - 1, (fresh.features[:, 1] - 100) / 5], axis=1)
    assert np.abs(ranker.predict(fresh.features) - sigmoid(truth.astype(np.float32))).mean() < 0.04


def test_a_step_reads_its_rows_and_no_others(monkeypatch):
    """What `take` draws from a table that is not in order of rows costs a copy of the table."""
    read = []
    fit_network = NetworkRanker._fit_network

    def seen(ranker, inputs, *others):
        read.append(inputs.flags.c_contiguous)
        return fit_network(ranker, inputs, *others)

    monkeypatch.setattr(NetworkRanker, "_fit_network", seen)
    NetworkRanker(epochs=1, batch_size=32).fit(rows())
    monkeypatch.undo()
    assert read == [True]


def test_weights_count_as_repeats_of_a_row():
    data = rows()
    heavy = np.where(data.labels[:, :1], 5.0, 1.0).astype(np.float32) * data.weights
    plain, weighted = (
        NetworkRanker(epochs=20, batch_size=256).fit(replace(data, weights=weights)).predict(data.features)[:, 0]
        for weights in (data.weights, heavy)
    )
    assert plain.mean() == pytest.approx(data.labels[:, 0].mean(), abs=0.03)
    assert weighted.mean() > plain.mean() + 0.15


def test_same_seed_same_network_and_another_seed_another():
    first, again, other = (
        NetworkRanker(epochs=2, seed=seed).fit(rows()).predict(rows().features) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@settings(max_examples=15)
@given(st.integers(0, 1_000), st.sampled_from([1e-3, 1.0, 50.0]))
def test_the_graph_answers_what_the_ranker_predicts(seed, scale):
    ranker = NetworkRanker(epochs=1, seed=seed).fit(rows(600, seed))
    features = (np.random.default_rng(seed).normal(size=(64, 5)) * scale).astype(np.float32)
    found = answers(ranker, features)
    assert found.shape == (64, 2)
    np.testing.assert_allclose(found, ranker.predict(features), atol=1e-5)


def test_extreme_features_give_finite_answers():
    ranker = NetworkRanker(epochs=1).fit(rows())
    features = np.array([[1e6] * 5, [-1e6] * 5, [0.0] * 5], np.float32)
    assert np.isfinite(answers(ranker, features)).all()
    assert np.isfinite(ranker.predict(features)).all()


def test_a_column_that_never_moved_has_no_say():
    ranker = NetworkRanker(epochs=2).fit(rows())
    features = rows().features[:50]
    moved = features.copy()
    moved[:, 4] += 3
    np.testing.assert_array_equal(ranker.predict(features), ranker.predict(moved))


def test_a_blank_ranker_answers_one_half():
    assert (answers(NetworkRanker.blank(3, 2), np.ones((4, 3), np.float32)) == 0.5).all()


def test_an_action_without_both_outcomes_is_refused():
    data = rows()
    with pytest.raises(ValueError, match="leave out actions without both outcomes"):
        NetworkRanker().fit(replace(data, labels=data.labels | True))
    with pytest.raises(NotFittedError, match="call `fit` first"):
        NetworkRanker().graph()
