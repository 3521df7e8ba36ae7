"""Histories as arrays that an encoder reads: windows over them, padded on the right."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.dataset import ACTIONS, Dataset
from trainers.recommender import Queries

Integers = NDArray[np.int64]
PADDING = 0
"""What fills a row behind the last event of its history; item `i` of the item table is written `i + 1`."""

SHOWN = ACTIONS["impression"]
"""What histories leave out: it is what the shop did, and the state of a visitor does not keep it either."""

REFUSED = tuple(ACTIONS[name] for name in ("remove_from_cart", "dislike", "return"))
"""What is read of a history but is no target: nobody is shown what they gave back."""

NO_TARGETS = (SHOWN, *REFUSED)
"""Event types that are no target of an encoder."""


@dataclass(frozen=True)
class Inputs:
    """What an encoder reads; every array has shape (b, length), and 0 follows the last event of a row.

    Attributes
    ----------
    items : Integers
        Position in the item table plus 1; `n_items + 1` and above is an unknown item.
    actions : Integers
        Number of `EventType`.
    gaps : Integers
        Milliseconds since the event before, in whole seconds as the state keeps them; 0 for the first of the row.
    """

    items: Integers
    actions: Integers
    gaps: Integers


@dataclass(frozen=True)
class Histories:
    """Events of many visitors, in order of time, without impressions.

    Attributes
    ----------
    offsets : Integers of shape (n + 1,)
        History `i` is the entries `offsets[i]` to `offsets[i + 1]`.
    items, actions, time_ms : Integers of shape (n_entries,)
        Position in the item table plus 1, number of `EventType`, moment.
    """

    offsets: Integers
    items: Integers
    actions: Integers
    time_ms: Integers

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of_dataset(cls, dataset: Dataset, rng: np.random.Generator) -> "Histories":
        """Return the history of every visitor that has one; events of one moment come in an order drawn by `rng`."""
        rows = dataset.where(dataset.action != SHOWN)
        order = np.lexsort((rng.random(len(rows)), rows.time_ms, rows.visitor))
        _, first = np.unique(rows.visitor, return_index=True)
        return cls(
            np.append(first, len(rows)).astype(np.int64),
            rows.item[order].astype(np.int64) + 1,
            rows.action[order].astype(np.int64),
            rows.time_ms[order],
        )

    @classmethod
    def of_queries(cls, queries: Queries) -> "Histories":
        """Return the histories of `queries`."""
        kept = queries.action != SHOWN
        before = np.append(0, np.cumsum(kept))
        return cls(
            before[queries.offsets].astype(np.int64),
            queries.item[kept].astype(np.int64) + 1,
            queries.action[kept].astype(np.int64),
            queries.time_ms[kept].astype(np.int64),
        )

    @property
    def is_target(self) -> NDArray[np.bool_]:
        """Whether each entry is a target, shape (n_entries,)."""
        return ~np.isin(self.actions, REFUSED)

    def inputs(self, starts: Integers, stops: Integers) -> Inputs:
        """Return the entries `starts[i]` to `stops[i]` as row `i`; rows have one column at least."""
        length = int((stops - starts).max(initial=1))
        if not len(self.items):
            return Inputs(*np.zeros((3, len(starts), length), np.int64))
        place = starts[:, None] + np.arange(length)
        inside = place < stops[:, None]
        place = np.minimum(place, len(self.items) - 1)
        gaps = 1000 * (self.time_ms[place] // 1000 - self.time_ms[np.maximum(place - 1, 0)] // 1000)
        gaps[:, :1] = 0
        return Inputs(
            np.where(inside, self.items[place], PADDING),
            np.where(inside, self.actions[place], 0),
            np.where(inside, gaps, 0),
        )

    def targets(self, starts: Integers, stops: Integers) -> Integers:
        """Return the targets of the rows of `inputs`, those after each entry, 0 where there is none."""
        found = self.inputs(starts + 1, stops + 1)
        return np.where(np.isin(found.actions, REFUSED), PADDING, found.items)

    def latest(self, length: int) -> tuple[Integers, Integers]:
        """Return where the last `length` entries of every history start and stop."""
        stops = self.offsets[1:]
        return np.maximum(self.offsets[:-1], stops - length), stops


@dataclass(frozen=True)
class Windows:
    """Parts of histories to learn from: every entry of `starts` to `stops` is read, the one after it is its target.

    Attributes
    ----------
    starts, stops : Integers of shape (n,)
        `stops` is the entry of the last target, so a window has `stops - starts` targets.
    """

    starts: Integers
    stops: Integers

    @classmethod
    def over(cls, offsets: Integers, length: int, held_out: NDArray[np.bool_]) -> "Windows":
        """Cut every history into windows of at most `length` targets in which each of its entries is a target once.

        The first window of a history is the short one. The last entry of a history in `held_out` is left out.
        """
        last = offsets[1:] - 1 - held_out
        targets = np.maximum(last - offsets[:-1], 0)
        count = -(-targets // length)
        back = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        stops = np.repeat(last, count) - back * length
        return cls(np.maximum(stops - length, np.repeat(offsets[:-1], count)), stops)

    def with_targets(self, is_target: NDArray[np.bool_]) -> "Windows":
        """Return the windows with a target; `is_target` has shape (n_entries,)."""
        before = np.append(0, np.cumsum(is_target))
        some = before[self.stops + 1] > before[self.starts + 1]
        return Windows(self.starts[some], self.stops[some])

    def batches(self, targets: int, rng: np.random.Generator) -> list[Integers]:
        """Return the numbers of the windows of each batch of about `targets` targets, padding included.

        Windows of like length share a batch, so that little of it is padding; `rng` decides among equals and over the
        order of the batches.
        """
        size = self.stops - self.starts
        order = np.lexsort((rng.random(len(size)), size))
        cuts = list(_cuts(size[order], targets))
        parts = np.split(order, cuts)
        return [parts[number] for number in rng.permutation(len(parts))]


def _cuts(size: Integers, targets: int) -> Iterator[int]:
    """Give where ascending sizes are cut so that the rows of a part times its longest stay within `targets`."""
    start = 0
    while start < len(size):
        rows = np.arange(1, len(size) - start + 1)
        fitting = int(np.searchsorted(rows * size[start:], targets, side="right"))
        start += max(fitting, 1)
        if start < len(size):
            yield start
