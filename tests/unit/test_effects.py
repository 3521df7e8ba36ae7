"""The features named in an explanation are those that moved the score."""

import numpy as np

from server.effects import effects

WEIGHTS = np.array([[2.0, 0.0], [0.0, 0.0], [-1.0, 4.0]], np.float32)


def linear(features):
    return features @ WEIGHTS


def test_the_effect_in_a_linear_model_is_its_term():
    features = np.array([[1, 2, 3], [0, 5, 1]], np.float32)
    mean = np.array([0.5, 2.0, 1.0], np.float32)
    found = effects(features, mean, linear, np.array([1.0, 0.5], np.float32))
    np.testing.assert_allclose(found, (features - mean) * (WEIGHTS @ [1.0, 0.5]), atol=1e-6)


def test_a_model_that_cannot_answer_has_no_effects():
    features = np.ones((2, 3), np.float32)
    assert not effects(features, np.zeros(3, np.float32), lambda _: None, np.ones(1, np.float32)).any()
