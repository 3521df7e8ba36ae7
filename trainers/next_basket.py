"""What each visitor buys next: their own rhythm, blended with that of the nearest visitors."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import Array, Progress, Trainer, no_progress, once_a_basket, rows_of
from trainers.dataset import Dataset


class NextBasket(Trainer):
    """TIFU-KNN: item frequency over baskets, decayed by age, and the mean of the nearest visitors.

    The nearest visitors are those of the highest cosine.

    Parameters
    ----------
    n_groups : int
        Groups that a visitor's baskets are cut into, in order of time.
    within, across : float
        Weight of a basket relative to the next of its group, and of a group relative to the next; in (0, 1].
    neighbours : int
        Nearest visitors that have a say.
    alpha : float
        Share of the visitor's own frequencies, 0 to 1.
    length : int
        Items kept for each visitor.
    seed : int
        Counting has no chance in it; kept so that every trainer has one.

    Attributes
    ----------
    offsets_ : NDArray[np.uint64] of shape (n_visitors + 1,)
    items_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, best first for each visitor.
    scores_ : NDArray[np.float32] of shape (n_entries,)

    References
    ----------
    Hu, He, Gao and Zhang 2020, Modeling Personalized Item Frequency Information for Next-basket Recommendation.
    """

    offsets_: NDArray[np.uint64]
    items_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    def __init__(  # noqa: PLR0913 - the hyper-parameters of the paper
        self,
        *,
        n_groups: int = 7,
        within: float = 0.9,
        across: float = 0.7,
        neighbours: int = 300,
        alpha: float = 0.8,
        length: int = 200,
        seed: int = 0,
    ) -> None:
        self.n_groups = n_groups
        self.within = within
        self.across = across
        self.neighbours = neighbours
        self.alpha = alpha
        self.length = length
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Learn from the purchases. O(sum over items of visitors²) for the exact search."""
        rows = once_a_basket(rows_of(dataset, "purchase"))
        self.offsets_, self.items_, self.scores_ = core_rs.next_baskets(
            rows.visitor,
            rows.basket,
            rows.item,
            (dataset.n_visitors, dataset.n_items),
            n_groups=self.n_groups,
            within=self.within,
            across=self.across,
            neighbours=self.neighbours,
            alpha=self.alpha,
            length=self.length,
        )
        progress(1.0)
        return self

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, items and scores of `next_basket.safetensors`."""
        return {"next_basket.safetensors": {name: self.fitted(f"{name}_") for name in ("offsets", "items", "scores")}}
