"""A model that is late or wrong is left alone."""

import numpy as np
import pytest

from server import ranker
from server.ranker import Ranker

FEATURES = np.zeros((2, 3), np.float32)


class FakeSession:
    def __init__(self, answer):
        self.answer = answer
        self.calls = 0

    def run(self, _outputs, _inputs):
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer]


def test_a_good_model_answers():
    actions, degraded = Ranker(FakeSession(np.ones((2, 1), np.float32))).score(FEATURES)
    assert actions.shape == (2, 1)
    assert degraded == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (np.array([[0.5], [np.nan]], np.float32), "model_not_finite"),
        (np.array([[-np.inf], [np.inf]], np.float32), "model_not_finite"),
        (RuntimeError("broken"), "model_failed"),
    ],
)
def test_a_wrong_model_is_named_then_paused(answer, reason):
    session = FakeSession(answer)
    model = Ranker(session)
    assert [model.score(FEATURES)[1] for _ in range(5)] == [reason] * 3 + ["model_paused"] * 2
    assert session.calls == 3


def test_a_late_model_answers_then_is_paused_then_tried_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ranker.time, "monotonic", lambda: now[0])

    class Late(FakeSession):
        def run(self, outputs, inputs):
            now[0] += 1.0
            return super().run(outputs, inputs)

    model = Ranker(Late(np.ones((2, 1), np.float32)))
    assert [model.score(FEATURES)[1] for _ in range(4)] == ["", "", "", "model_paused"]
    now[0] += 60
    assert model.score(FEATURES)[1] == ""
