"""What visitors of like taste buy and a visitor has not bought yet."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import Array, Progress, Trainer, no_progress, once_a_basket, rows_of
from trainers.dataset import Dataset


class UserToUser(Trainer):
    """Mean of the purchases of the nearest visitors, without what the visitor has bought.

    Every basket counts alike, however old.

    Parameters
    ----------
    neighbours : int
        Nearest visitors, by cosine, that have a say.
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
    """

    offsets_: NDArray[np.uint64]
    items_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    def __init__(self, *, neighbours: int = 100, length: int = 200, seed: int = 0) -> None:
        self.neighbours = neighbours
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
            n_groups=1,
            within=1.0,
            across=1.0,
            neighbours=self.neighbours,
            alpha=0.0,
            length=self.length,
            only_new=True,
        )
        progress(1.0)
        return self

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, items and scores of `user_to_user.safetensors`."""
        return {"user_to_user.safetensors": {name: self.fitted(f"{name}_") for name in ("offsets", "items", "scores")}}
