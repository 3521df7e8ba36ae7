"""Whether a probability is what happens: scores bent by two numbers, and how far probabilities are off."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from trainers.evaluate import Metric

_STEPS = 50
_CLOSE = 1e-9
_BINS = 20
_RESAMPLES = 200


@dataclass(frozen=True)
class Calibration:
    """Probability of a score: the logistic function of `slope * score + offset`.

    References
    ----------
    Platt 1999, Probabilistic outputs for support vector machines, equation 1.
    """

    slope: float = 1.0
    offset: float = 0.0

    @classmethod
    def fit(cls, scores: NDArray[np.float64], labels: NDArray[np.bool_], weights: NDArray[np.float32]) -> Self:
        """Return the calibration of greatest likelihood, by Newton's steps; scores stay as they are where it has none.

        That is where one outcome is missing, or where it would turn the order of scores around. What followed counts as
        a little less than certain, and what did not as a little more than impossible, so that scores which tell all of
        few apart do not become certainties (Platt, section 2.2).

        Parameters
        ----------
        scores : NDArray[np.float64] of shape (n,)
            Logits.
        labels : NDArray[np.bool_] of shape (n,)
            Whether the action followed.
        weights : NDArray[np.float32] of shape (n,)
            Candidates that each row stands for, at least 0.
        """
        if not labels.any() or labels.all():
            return cls()
        table = np.column_stack([scores, np.ones_like(scores)])
        share = weights / weights.sum(dtype=np.float64)
        followed = int(labels.sum())
        target = np.where(labels, (followed + 1) / (followed + 2), 1 / (len(labels) - followed + 2))
        found = np.array([1.0, 0.0])
        for _ in range(_STEPS):
            probabilities = expit(table @ found)
            spread = share * probabilities * (1 - probabilities)
            curve = (table * spread[:, None]).T @ table + _CLOSE * np.eye(2)
            step = np.linalg.solve(curve, table.T @ (share * (probabilities - target)))
            found -= step
            if np.abs(step).max() < _CLOSE:
                break
        slope, offset = found.tolist()
        return cls(slope, offset) if np.isfinite(found).all() and slope > 0 else cls()

    def logits(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the calibrated scores, whose logistic function is the probability; shape as `scores`."""
        return self.slope * scores + self.offset


def expected_error(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.bool_],
    weights: NDArray[np.float32],
    visitors: NDArray[np.uint32],
    seed: int,
) -> Metric:
    """Return the expected calibration error: how far a bin's mean probability is from the share that followed.

    Twenty bins hold as many rows each, since nearly all probabilities are small. The 95 % interval is that of resamples
    of visitors, whose rows are alike, drawn from `seed`, less what chance adds to the error of all of them.

    Parameters
    ----------
    probabilities : NDArray[np.float64] of shape (n,), n > 0
        Of the action, each in [0, 1].
    labels : NDArray[np.bool_] of shape (n,)
        Whether it followed.
    weights : NDArray[np.float32] of shape (n,)
        Candidates that each row stands for, at least 0.
    visitors : NDArray[np.uint32] of shape (n,)
        Whose candidates they are.
    seed : int

    References
    ----------
    Naeini et al. 2015, Obtaining well calibrated probabilities using Bayesian binning; bins of equal size after Nixon
    et al. 2019, Measuring calibration in deep learning.
    """
    count = len(probabilities)
    places = np.empty(count, np.int64)
    places[np.argsort(probabilities, kind="stable")] = np.arange(count) * _BINS // count
    gap = probabilities - labels

    def error(counts: NDArray[np.floating]) -> float:
        return float(np.abs(np.bincount(places, gap * counts)).sum() / counts.sum())

    rng = np.random.default_rng(seed)
    of_visitors, owner = np.unique(visitors, return_inverse=True)
    counts = (rng.poisson(1, len(of_visitors)) for _ in range(_RESAMPLES))
    resamples = [error(weights * drawn[owner]) for drawn in counts if drawn.any()]
    low, high = np.quantile(resamples, [0.025, 0.975]) - np.mean(resamples)
    found = error(weights)
    return Metric(found, max(found + min(float(low), 0.0), 0.0), found + max(float(high), 0.0))
