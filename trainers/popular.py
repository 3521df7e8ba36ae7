"""What everybody buys now: the list for cold start and for clients that cannot reach the server."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainers.base import DAY_MS, Array, Progress, Trainer, no_progress, once_a_basket, rows_of
from trainers.dataset import Dataset


class Popular(Trainer):
    """Number of baskets with the item, each halved with every half-life of its age before the newest row.

    Parameters
    ----------
    half_life_days : float
        Positive.
    n_items_kept : int
        Items kept.
    action : str
        Event type that counts.

    Attributes
    ----------
    items_ : NDArray[np.uint32] of shape (n,)
        Positions in `Dataset.items`, best first; ties break by position.
    scores_ : NDArray[np.float32] of shape (n,)
        Baskets, decayed; positive.

    References
    ----------
    Hyndman and Athanasopoulos 2021, Forecasting: principles and practice, section 8.1, for the decay.
    """

    items_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    def __init__(self, *, half_life_days: float = 28.0, n_items_kept: int = 1000, action: str = "purchase") -> None:
        self.half_life_days = half_life_days
        self.n_items_kept = n_items_kept
        self.action = action

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count the baskets. O(rows + items log items)."""
        if not self.half_life_days > 0:
            raise ValueError(f"half_life_days is {self.half_life_days}; give a positive number of days")
        rows = once_a_basket(rows_of(dataset, self.action))
        age_days = (rows.time_ms.max() - rows.time_ms) / DAY_MS
        scores = np.bincount(rows.item, np.exp2(-age_days / self.half_life_days)).astype(np.float32)
        best = np.argsort(-scores, kind="stable")[: self.n_items_kept]
        self.items_ = best[scores[best] > 0].astype(np.uint32)
        self.scores_ = scores[self.items_]
        progress(1.0)
        return self

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return items and scores of `popular.safetensors`."""
        return {"popular.safetensors": {"items": self.fitted("items_"), "scores": self.fitted("scores_")}}
