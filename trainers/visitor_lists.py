"""Lists of items for each visitor, learnt from purchases: frequencies of the visitor's own, blended with others'."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import Array, Progress, Trainer, no_progress, once_a_basket, rows_of
from trainers.dataset import Dataset

Lists = tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]
"""Offsets, items and scores."""


class VisitorLists(Trainer):
    """Trainer of one list a visitor, from all baskets.

    Attributes
    ----------
    offsets_ : NDArray[np.uint64] of shape (n_visitors + 1,)
    items_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, best first for each visitor.
    scores_ : NDArray[np.float32] of shape (n_entries,)
    """

    file: ClassVar[str]
    offsets_: NDArray[np.uint64]
    items_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    @abstractmethod
    def decay(self) -> Mapping[str, Any]:
        """Return how baskets of a visitor weigh: `n_groups`, `within` and `across`."""

    @abstractmethod
    def choice(self) -> Mapping[str, Any]:
        """Return how the others have a say: `neighbours`, `alpha`, `length` and `only_new`."""

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Learn from the purchases. O(sum over items of visitors²) for the exact search."""
        rows = once_a_basket(rows_of(dataset, "purchase"))
        shape = (dataset.n_visitors, dataset.n_items)
        self.keep(
            core_rs.next_baskets(rows.visitor, rows.basket, rows.item, shape, **self.decay(), **self.choice()),
        )
        progress(1.0)
        return self

    def keep(self, lists: Lists) -> None:
        """Set the fitted attributes."""
        self.offsets_, self.items_, self.scores_ = lists

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, items and scores of the one file."""
        return {self.file: {name: self.fitted(f"{name}_") for name in ("offsets", "items", "scores")}}
