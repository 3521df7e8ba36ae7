"""What every ranker has in common: from the features of a candidate to the probability of every action."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import expit

from trainers.base import NotFittedError, Progress, no_progress
from trainers.calibration import Calibration, expected_error
from trainers.evaluate import Metric

OPSET = 17
"""Version of the ONNX operators that rankers use."""

_HELD_OUT = 20
"""One visitor in so many is for calibration: half of the rows to fit it, half to measure it."""
_LEAST_HELD_OUT = 2_000
"""Rows of each action; two numbers made of fewer are mostly chance."""

SERVED_EXPOSURE = np.float32(1)
"""Exposure at which every candidate is judged when it is served: as if it were shown first."""


@dataclass(frozen=True)
class Rows:
    """Candidates with what became of them.

    Attributes
    ----------
    features : NDArray[np.float32] of shape (n, d)
    labels : NDArray[np.bool_] of shape (n, h)
        Whether each action followed.
    weights : NDArray[np.float32] of shape (n, h)
        Candidates that each row stands for; 0 where it says nothing about an action.
    positions : NDArray[np.int32] of shape (n,)
        Position from 1 at which the visitor was shown the item meanwhile, 0 where nobody said that it was shown.
    visitors : NDArray[np.uint32] of shape (n,)
        Whose candidates they are.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.bool_]
    weights: NDArray[np.float32]
    positions: NDArray[np.int32]
    visitors: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def concatenate(cls, parts: Sequence["Rows"]) -> "Rows":
        """Return all rows of `parts`."""
        return cls(
            np.concatenate([part.features for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.visitors for part in parts]),
        )

    def part(self, rows: NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        kept = self.features[rows], self.labels[rows], self.weights[rows], self.positions[rows]
        return Rows(*kept, self.visitors[rows])

    def without(self, rows: NDArray[np.bool_]) -> "Rows":
        """Return rows of which some say nothing; the features are shared."""
        return replace(self, weights=np.where(rows[:, None], np.float32(0), self.weights))

    @property
    def has_both_outcomes(self) -> bool:
        """Whether each action followed some of the rows that ask for it, and not all."""
        asks = self.weights > 0
        followed, asked = (self.labels & asks).sum(axis=0), asks.sum(axis=0)
        return bool(((followed > 0) & (followed < asked)).all())

    @property
    def exposure(self) -> NDArray[np.float32]:
        """How well the visitor could see each item: 1 / position, 0 where it was not shown; shape (n,)."""
        shown = self.positions > 0
        return np.divide(1, self.positions, out=np.zeros(len(self), np.float32), where=shown, casting="unsafe")


class Ranker(ABC):
    """Model of the probability of each action, which a bundle serves as an ONNX graph.

    What is shown first is chosen more often whatever it is. So a ranker learns from the exposure of a candidate beside
    its features, and judges all of them at one exposure when they are served.

    The rows of some visitors are held out, so that what is measured on them is new. On half of them two numbers an
    action are fitted that bend the logits to probabilities, on the other half the error is measured, before and after:
    both at the exposures that were logged, since nobody saw what follows where all is shown first. The two numbers,
    folded into the graph, hold at the exposure that is served as far as this one adds up with the rest in the logit.

    Attributes
    ----------
    seed : int
        Equal rows and seeds give equal graphs.
    calibrations_ : list[Calibration]
        Of each action.
    errors_ : list[tuple[Metric, Metric]]
        Expected calibration error of each action before and after; empty where there were too few rows to hold out.

    References
    ----------
    Ling et al. 2017, Model ensemble for click prediction in Bing search ads; Guo et al. 2019, PAL, section 1, for the
    position as a feature with one value when served.
    """

    seed: int
    calibrations_: list[Calibration]
    errors_: list[tuple[Metric, Metric]]

    def fit(self, rows: Rows, progress: Progress = no_progress) -> Self:
        """Learn to tell the rows that an action followed from the others; those of some visitors calibrate.

        Raises
        ------
        ValueError
            When an action never or always followed.
        """
        if not rows.has_both_outcomes:
            share = rows.labels.mean(axis=0) if len(rows) else np.zeros(1)
            raise ValueError(f"shares of rows with each action are {share}; leave out actions without both outcomes")
        held = _held_out(rows)
        self._learn(rows.without(held) if held.any() else rows, progress)
        self._calibrate(rows.part(held))
        return self

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each action for each row as if it were shown first, shape (n, h).

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        scores = self._logits(features, np.full(len(features), SERVED_EXPOSURE))
        bent = [
            calibration.logits(of_action) for calibration, of_action in zip(self.calibrations_, scores.T, strict=True)
        ]
        return np.asarray(expit(np.stack(bent, axis=1)), np.float32)

    @abstractmethod
    def graph(self) -> onnx.ModelProto:
        """Return the calibrated model as ONNX: `features` (n, d) to `actions` (n, h).

        Raises
        ------
        NotFittedError
            Before `fit`.
        """

    def metrics(self, actions: Sequence[str]) -> Mapping[str, Metric]:
        """Return the expected calibration error of each action before and after calibration."""
        named = zip(actions, self.errors_, strict=False)
        return {
            f"{action}/calibration_error_{when}": error
            for action, errors in named
            for when, error in zip(("before", "after"), errors, strict=True)
        }

    @abstractmethod
    def _learn(self, rows: Rows, progress: Progress) -> None:
        """Fit the model to rows that have both outcomes of each action."""

    @abstractmethod
    def _logits(self, features: NDArray[np.float32], exposure: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the scores of the model before calibration, shape (n, h), for exposures of shape (n,)."""

    def _calibrate(self, rows: Rows) -> None:
        """Fit the calibration of each action on every other row, and measure it on the rest."""
        self.calibrations_, self.errors_ = [Calibration()] * rows.labels.shape[1], []
        if not len(rows):
            return
        logits = np.asarray(self._logits(rows.features, rows.exposure), np.float64)
        for action, (scores, labels, weights) in enumerate(zip(logits.T, rows.labels.T, rows.weights.T, strict=True)):
            asked = np.flatnonzero(weights)
            half, rest = asked[::2], asked[1::2]
            calibration = Calibration.fit(scores[half], labels[half], weights[half])
            before, after = (
                expected_error(expit(values[rest]), labels[rest], weights[rest], self.seed)
                for values in (scores, calibration.logits(scores))
            )
            self.calibrations_[action] = calibration
            self.errors_.append((before, after))

    def not_fitted(self) -> NotFittedError:
        """Return the error of a ranker that has learnt nothing."""
        return NotFittedError(f"{type(self).__name__} has learnt nothing yet; call `fit` first")


def _held_out(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows are not learnt from; none where they would be few."""
    held = rows.visitors % _HELD_OUT == 0
    enough = ((rows.weights[held] > 0).sum(axis=0) >= _LEAST_HELD_OUT).all()
    return held if enough and rows.without(held).has_both_outcomes else np.zeros(len(rows), np.bool_)
