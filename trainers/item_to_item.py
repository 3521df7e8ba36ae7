"""Neighbour lists of items: what visitors also viewed, also bought, and bought together."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import DAY_MS, Array, Progress, Trainer, no_progress, rows_of
from trainers.dataset import Dataset

Measure = Literal["cosine", "tf_idf", "lift", "jaccard", "conditional"]


class NeighbourTrainer(Trainer):
    """Trainer of one neighbour list an item.

    Attributes
    ----------
    offsets_ : NDArray[np.uint32] of shape (n_items + 1,)
        Item `i` has the entries `offsets_[i]` to `offsets_[i + 1]`.
    neighbours_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, best first; ties break by position.
    scores_ : NDArray[np.float32] of shape (n_entries,)
        Positive, descending in each list.
    """

    file: ClassVar[str]
    actions: ClassVar[tuple[str, ...]]
    offsets_: NDArray[np.uint32]
    neighbours_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, neighbours and scores of the one file."""
        names = ("offsets", "neighbours", "scores")
        return {self.file: {name: self.fitted(f"{name}_") for name in names}}

    def keep(self, lists: tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]) -> None:
        """Set the fitted attributes."""
        offsets, self.neighbours_, self.scores_ = lists
        self.offsets_ = offsets.astype(np.uint32)


class ItemToItem(NeighbourTrainer):
    """Trainer by common visitors or baskets; each kind of list is a subclass.

    Parameters
    ----------
    measure : str
        How alike two items are: `cosine`, `tf_idf`, `lift`, `jaccard` or `conditional`.
    k : int
        Neighbours of each item.
    shrink : float
        Added to the measure's denominator, in rows, so that pairs with little evidence sink.
    seed : int
        Counting has no chance in it; kept so that every trainer has one.
    """

    by: ClassVar[Literal["visitor", "basket"]]

    def __init__(self, *, measure: Measure = "cosine", k: int = 50, shrink: float = 10.0, seed: int = 0) -> None:
        self.measure = measure
        self.k = k
        self.shrink = shrink
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count common visitors or baskets of all pairs of items. O(sum over those of items²)."""
        rows = rows_of(dataset, *self.actions)
        of = rows.visitor if self.by == "visitor" else rows.basket
        self.keep(
            core_rs.item_neighbours(
                of,
                rows.item,
                (int(of.max()) + 1, dataset.n_items),
                measure=self.measure,
                k=self.k,
                shrink=self.shrink,
            )
        )
        progress(1.0)
        return self


class AlsoViewed(ItemToItem):
    """Items that the same visitors clicked or opened."""

    file = "also_viewed.safetensors"
    actions = ("click", "view")
    by = "visitor"


class AlsoBought(ItemToItem):
    """Items that the same visitors bought, whenever."""

    file = "also_bought.safetensors"
    actions = ("purchase",)
    by = "visitor"


class BoughtTogether(ItemToItem):
    """Items of the same orders."""

    file = "bought_together.safetensors"
    actions = ("purchase",)
    by = "basket"


class SequentialRules(NeighbourTrainer):
    """Items that visitors turn to after an item; in place of `AlsoViewed` where the order of views is known.

    Parameters
    ----------
    window : int
        Furthest distance between the two items, in steps of the visitor's history.
    directed : bool
        Whether only later items count. False where the order within a day is not known.
    k : int
        Rules of each item.
    half_life_days : float
        Age at which evidence counts half; 0 lets nothing age.
    seed : int
        Counting has no chance in it; kept so that every trainer has one.

    References
    ----------
    Ludewig and Jannach 2018, Evaluation of session-based recommendation algorithms, section 3.1.
    """

    file = "also_viewed.safetensors"
    actions = ("click", "view")

    def __init__(
        self, *, window: int = 10, directed: bool = True, k: int = 50, half_life_days: float = 0.0, seed: int = 0
    ) -> None:
        self.window = window
        self.directed = directed
        self.k = k
        self.half_life_days = half_life_days
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Add up 1 / distance of all pairs of items within the window. O(rows * window)."""
        rows = rows_of(dataset, *self.actions)
        self.keep(
            core_rs.sequence_neighbours(
                rows.visitor,
                rows.item,
                rows.time_ms,
                dataset.n_items,
                window=self.window,
                directed=self.directed,
                k=self.k,
                half_life_ms=round(self.half_life_days * DAY_MS),
            )
        )
        progress(1.0)
        return self
