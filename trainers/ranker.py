"""What every ranker has in common: from the features of a candidate to the probability of every action."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray

from trainers.base import NotFittedError, Progress, no_progress
from trainers.evaluate import Metric

OPSET = 17
"""Version of the ONNX operators that rankers use."""

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
    weights : NDArray[np.float32] of shape (n,)
        Candidates that each row stands for.
    positions : NDArray[np.int32] of shape (n,)
        Position from 1 at which the visitor was shown the item meanwhile, 0 where nobody said that it was shown.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.bool_]
    weights: NDArray[np.float32]
    positions: NDArray[np.int32]

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
        )

    @property
    def exposure(self) -> NDArray[np.float32]:
        """How well the visitor could see each item: 1 / position, 0 where it was not shown; shape (n,)."""
        shown = self.positions > 0
        return np.divide(1, self.positions, out=np.zeros(len(self), np.float32), where=shown, casting="unsafe")


class Ranker(ABC):
    """Model of the probability of each action, which a bundle serves as an ONNX graph.

    What is shown first is chosen more often whatever it is. So a ranker learns from the exposure of a candidate beside
    its features, and judges all of them at one exposure when they are served.

    Attributes
    ----------
    seed : int
        Equal rows and seeds give equal graphs.

    References
    ----------
    Ling et al. 2017, Model ensemble for click prediction in Bing search ads; Guo et al. 2019, PAL, section 1, for the
    position as a feature with one value when served.
    """

    seed: int

    @abstractmethod
    def fit(self, rows: Rows, progress: Progress = no_progress) -> Self:
        """Learn to tell the rows that an action followed from the others.

        Raises
        ------
        ValueError
            When an action never or always followed.
        """

    @abstractmethod
    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probability of each action for each row, shape (n, h).

        Raises
        ------
        NotFittedError
            Before `fit`.
        """

    @abstractmethod
    def graph(self) -> onnx.ModelProto:
        """Return the model as ONNX: `features` (n, d) to `actions` (n, h).

        Raises
        ------
        NotFittedError
            Before `fit`.
        """

    def metrics(self, actions: Sequence[str]) -> Mapping[str, Metric]:
        """Return what else is known of how good its probabilities of `actions` are; nothing unless a ranker says so."""
        del actions
        return {}

    def not_fitted(self) -> NotFittedError:
        """Return the error of a ranker that has learnt nothing."""
        return NotFittedError(f"{type(self).__name__} has learnt nothing yet; call `fit` first")


def check_outcomes(rows: Rows) -> None:
    """Raise ValueError when an action never or always followed."""
    share = rows.labels.mean(axis=0) if len(rows) else np.zeros(1)
    if not ((share > 0) & (share < 1)).all():
        raise ValueError(f"shares of rows with each action are {share}; leave out actions without both outcomes")
