"""When training looks at a shop: past moments to learn to rank from, one to decide at, and the split."""

from dataclasses import dataclass

import numpy as np

from trainers.base import DAY_MS
from trainers.dataset import Dataset, Export


@dataclass(frozen=True)
class Schedule:
    """Moments that training looks at.

    Attributes
    ----------
    split_ms : int
        Models see what is before; what follows measures them.
    horizon_ms : int
        Time in which a visitor's next visit counts as an answer.
    cuts : tuple[int, ...]
        Past moments to learn to rank from, ascending.
    validation_ms : int
        The cut that decides between ranker and heuristic.
    """

    split_ms: int
    horizon_ms: int
    cuts: tuple[int, ...]
    validation_ms: int

    @classmethod
    def weekly(cls, dataset: Dataset, split_ms: int, *, weeks: int = 16) -> "Schedule":
        """Return a cut for each of the last `weeks`; a shorter history is cut closer, and half of it is never cut."""
        history = split_ms - int(dataset.time_ms.min(initial=split_ms))
        step = max(min(7 * DAY_MS, history // 12), 1)
        count = min(weeks, max(history // 2 // step, 0))
        cuts = tuple(split_ms - step * number for number in range(count, 0, -1))
        return cls(split_ms, 2 * step, cuts, split_ms - 2 * step)

    @property
    def answered(self) -> int:
        """Number of cuts whose answers end before the validation, the first ones of all."""
        return sum(cut + self.horizon_ms <= self.validation_ms for cut in self.cuts)

    def end_ms(self, cut: int) -> int:
        """Return the end of the answers to a cut; none is known from the split on."""
        return min(cut + self.horizon_ms, self.split_ms)


def split_of(export: Export) -> int:
    """Return the moment to measure at where none is named: where held-out events begin, else 28 days before the end.

    A log of less than 16 weeks has its last quarter measured.
    """
    if export.held_out_ms is not None:
        return export.held_out_ms
    start, end = (int(end(export.dataset.time_ms, initial=0)) for end in (np.min, np.max))
    return end + 1 - min(28 * DAY_MS, (end - start) // 4)
