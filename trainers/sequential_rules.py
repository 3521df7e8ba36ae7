"""What visitors turn to before and after an item."""

from typing import Self

import numpy as np

import core_rs
from trainers.base import DAY_MS, Progress, no_progress, rows_of
from trainers.dataset import Dataset
from trainers.item_to_item import NeighbourLists


class SequentialRules(NeighbourLists):
    """SR: items that visitors turn to after an item.

    Parameters
    ----------
    max_distance : int
        Furthest distance between the two items, in steps of the visitor's history.
    backward : float
        Weight of a rule from the later item back to the earlier one, 0 to 1; 1 where the order is not known.
    damping : tuple[float, float]
        Exponents by which the counts of the item that a rule leads from, and to, divide it.
    k : int
        Rules of each item.
    half_life_days : float
        Age at which evidence counts half; 0 lets nothing age.
    decay : float
        Weight of a step of the history relative to the next.
    window : int
        Steps of the history that count, newest first.
    actions : tuple[str, ...]
        Event types that count; all where it is empty.
    seed : int
        Orders rows of equal time, which have no order of their own.

    References
    ----------
    Ludewig and Jannach 2018, Evaluation of session-based recommendation algorithms, section 3.1.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = SequentialRules().fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    def __init__(  # noqa: PLR0913 - keyword hyper-parameters
        self,
        *,
        max_distance: int = 10,
        backward: float = 0.0,
        damping: tuple[float, float] = (0.0, 0.0),
        k: int = 50,
        half_life_days: float = 0.0,
        decay: float = 0.6,
        window: int = 10,
        actions: tuple[str, ...] = ("click", "view"),
        seed: int = 0,
    ) -> None:
        self.max_distance = max_distance
        self.backward = backward
        self.damping = damping
        self.k = k
        self.half_life_days = half_life_days
        self.decay = decay
        self.window = window
        self.actions = actions
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Add up 1 / distance of all pairs of items within the window. O(rows * max_distance)."""
        rows = rows_of(dataset, *self.actions)
        draw = np.random.default_rng(self.seed).random(len(rows))
        order = np.lexsort((draw, rows.time_ms, rows.visitor))
        self.keep(
            core_rs.sequence_neighbours(
                rows.visitor[order],
                rows.item[order],
                rows.time_ms[order],
                dataset.n_items,
                window=self.max_distance,
                backward=self.backward,
                damping=self.damping,
                k=self.k,
                half_life_ms=round(self.half_life_days * DAY_MS),
            )
        )
        progress(1.0)
        return self
