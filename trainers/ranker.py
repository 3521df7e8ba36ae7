"""What every ranker has in common: from the features of a candidate to the probability of every action."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy.special import expit

from trainers.base import NotFittedError, Progress, no_progress
from trainers.calibration import Calibration, expected_error
from trainers.evaluate import Metric

_HELD_OUT = 20
"""One visitor in so many is for calibration: half of them to fit it, half to measure it."""
_LEAST_HALF, _LEAST_OUTCOMES = 1_000, 100
"""Rows of a half that ask for an action, and of these that it followed, and that it did not; two numbers made of fewer
are mostly chance."""

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

    def of_actions(self, kept: NDArray[np.bool_]) -> "Rows":
        """Return the rows that ask for one of some actions, with these alone; `kept` has shape (h,)."""
        rows = (self.weights[:, kept] > 0).any(axis=1)
        labels, weights = self.labels[rows][:, kept], self.weights[rows][:, kept]
        return Rows(self.features[rows], labels, weights, self.positions[rows], self.visitors[rows])

    @property
    def outcomes(self) -> NDArray[np.int64]:
        """Number of rows that ask for each action and that it followed, then did not follow; shape (2, h)."""
        return _outcomes(self.labels, self.weights)

    @property
    def exposure(self) -> NDArray[np.float32]:
        """How well the visitor could see each item: 1 / position, 0 where it was not shown; shape (n,)."""
        shown = self.positions > 0
        return np.divide(1, self.positions, out=np.zeros(len(self), np.float32), where=shown, casting="unsafe")


class Ranker(ABC):
    """Model of the probability of each action, which a bundle serves as an ONNX graph.

    What is shown first is chosen more often whatever it is. So a ranker learns from the exposure of a candidate beside
    its features, and judges all of them at one exposure when they are served.

    The rows of some visitors are held out, so that what is measured on them is new. On half of these visitors two
    numbers an action are fitted that bend the logits to probabilities, on the others the error is measured, before and
    after: both at the exposures that were logged, since nobody saw what follows where all is shown first. The two
    numbers, folded into the graph, hold at the exposure that is served as far as this one adds up with the rest in the
    logit. An action of few outcomes in either half keeps its logits.

    Attributes
    ----------
    seed : int
        Equal rows and seeds give equal graphs.
    calibrations_ : list[Calibration]
        Of each action.
    errors_ : list[tuple[Metric, Metric] | None]
        Expected calibration error of each action before and after; None where too few rows were held out to calibrate.

    References
    ----------
    Ling et al. 2017, Model ensemble for click prediction in Bing search ads; Guo et al. 2019, PAL, section 1, for the
    position as a feature with one value when served.
    """

    seed: int
    calibrations_: list[Calibration]
    errors_: list[tuple[Metric, Metric] | None]

    def fit(self, rows: Rows, progress: Progress = no_progress) -> Self:
        """Learn to tell the rows that an action followed from the others; those of some visitors calibrate.

        Raises
        ------
        ValueError
            When an action never or always followed.
        """
        if not rows.outcomes.all():
            share = rows.labels.mean(axis=0) if len(rows) else np.zeros(1)
            raise ValueError(f"shares of rows with each action are {share}; leave out actions without both outcomes")
        held = _held_out(rows)
        self._learn(rows.part(~held) if held.any() else rows, progress)
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
        named = zip(actions, self.errors_, strict=True)
        return {
            f"{action}/calibration_error_{when}": error
            for action, errors in named
            if errors is not None
            for when, error in zip(("before", "after"), errors, strict=True)
        }

    @abstractmethod
    def _learn(self, rows: Rows, progress: Progress) -> None:
        """Fit the model to rows that have both outcomes of each action."""

    @abstractmethod
    def _logits(self, features: NDArray[np.float32], exposure: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the scores of the model before calibration, shape (n, h), for exposures of shape (n,)."""

    def _calibrate(self, rows: Rows) -> None:
        """Fit the calibration of each action on half of the visitors, and measure it on the rest."""
        count = rows.labels.shape[1]
        self.calibrations_, self.errors_ = [Calibration()] * count, [None] * count
        enough = _enough(rows)
        if not enough.any():
            return
        logits = np.asarray(self._logits(rows.features, rows.exposure), np.float64)
        for action in np.flatnonzero(enough).tolist():
            scores, labels, weights = logits[:, action], rows.labels[:, action], rows.weights[:, action]
            half, rest = ((weights > 0) & of_half for of_half in _halves(rows))
            calibration = Calibration.fit(scores[half], labels[half], weights[half])
            measured = labels[rest], weights[rest], rows.visitors[rest], self.seed
            before, after = (
                expected_error(expit(values[rest]), *measured) for values in (scores, calibration.logits(scores))
            )
            self.calibrations_[action], self.errors_[action] = calibration, (before, after)

    def not_fitted(self) -> NotFittedError:
        """Return the error of a ranker that has learnt nothing."""
        return NotFittedError(f"{type(self).__name__} has learnt nothing yet; call `fit` first")


def _held_out(rows: Rows) -> NDArray[np.bool_]:
    """Return which rows are not learnt from; none where they are too few to calibrate by, or the rest to learn from."""
    held = rows.visitors % _HELD_OUT == 0
    useful = _enough(rows.part(held)).any() and _outcomes(rows.labels[~held], rows.weights[~held]).all()
    return held if useful else np.zeros(len(rows), np.bool_)


def _halves(rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which of the held-out rows fit the calibration, and which measure it; a visitor's are all in one half."""
    half = rows.visitors // _HELD_OUT % 2 == 0
    return half, ~half


def _enough(rows: Rows) -> NDArray[np.bool_]:
    """Return which actions the held-out rows are enough to calibrate, shape (h,)."""
    halves = [_outcomes(rows.labels[half], rows.weights[half]) for half in _halves(rows)]
    enough = [(half >= _LEAST_OUTCOMES).all(axis=0) & (half.sum(axis=0) >= _LEAST_HALF) for half in halves]
    return np.asarray(np.logical_and(*enough))


def _outcomes(labels: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.int64]:
    asks = weights > 0
    return np.stack([(labels & asks).sum(axis=0), (~labels & asks).sum(axis=0)])
