"""Measures of ranked items, every visitor alike; a visitor without a target is left out and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.protocols import Task

Scorer = Callable[[NDArray[np.uint32]], NDArray[np.float32]]
"""From visitors (n,) to a score of every item (n, n_items); -inf never ranks."""

MEASURES = ("recall_at_10", "ndcg_at_10", "phr_at_10", "recall_at_20")
"""Names of what `measure` gives."""

_TOP, _MORE, _CURVE = 10, 20, 50
_BATCH = 256
_RESAMPLES = 1000


class Metric(NamedTuple):
    """Mean over visitors with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measured:
    """Quality of one model on one task.

    Attributes
    ----------
    values : dict[str, NDArray[np.float64]]
        Value of every visitor that has a target, by measure.
    left_out : int
        Visitors without a target.
    recall : NDArray[np.float64] of shape (50,)
        Mean recall at 1 to 50.
    """

    values: dict[str, NDArray[np.float64]]
    left_out: int
    recall: NDArray[np.float64]

    @property
    def visitor_count(self) -> int:
        """Visitors that were measured."""
        return len(next(iter(self.values.values())))

    def means(self) -> dict[str, float]:
        """Return the mean of every measure."""
        return {name: float(values.mean()) if len(values) else 0.0 for name, values in self.values.items()}

    def metrics(self, seed: int = 0) -> dict[str, Metric]:
        """Return mean and bootstrap interval of every measure, drawn from `seed`."""
        count = self.visitor_count
        if count == 0:
            return {name: Metric(0.0, 0.0, 0.0) for name in self.values}
        intervals = {name: interval(values, seed) for name, values in self.values.items()}
        return {name: Metric(mean, *intervals[name]) for name, mean in self.means().items()}


def interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean of at least one value, drawn from `seed`. O(values) memory."""
    rng, count = np.random.default_rng(seed), len(values)
    even = np.full(count, 1.0 / count)
    means = [rng.multinomial(count, even) @ values / count for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ranks_of_scores(task: Task, score: Scorer) -> NDArray[np.float64]:
    """Return the rank from 0 of every target among all items of the task, ties at their middle.

    In an explore-only task the items a visitor bought do not compete. A target scored -inf has rank infinity.
    """
    ranks = np.full(len(task.target), np.inf)
    train = task.train
    for start in range(0, len(task.visitor), _BATCH):
        visitors = task.visitor[start : start + _BATCH]
        scores = np.where(task.kept, score(visitors), -np.inf)
        if task.explore:
            of_batch = np.isin(train.visitor, visitors)
            scores[np.searchsorted(visitors, train.visitor[of_batch]), train.item[of_batch]] = -np.inf
        for row, entry in enumerate(task.offsets[start : start + len(visitors)]):
            end = task.offsets[start + row + 1]
            ranks[entry:end] = mid_tie_ranks(scores[row], task.target[entry:end])
    return ranks


def mid_tie_ranks(scores: NDArray[np.float32], targets: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Return the rank from 0 of `targets` by falling score; equal scores share the middle of their places."""
    own = scores[targets]
    order = np.sort(scores)
    above = len(scores) - np.searchsorted(order, own, side="right")
    equal = len(scores) - np.searchsorted(order, own, side="left") - above
    return np.where(np.isfinite(own), above + (equal - 1) / 2, np.inf)


def ranks_of_lists(task: Task, lists: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return the rank from 0 of every target in the item ids shown to its visitor, infinity if it was not shown.

    Items that the task does not ask for are passed over: a shop ranks all it sells, the protocol only what it keeps.
    """
    items = task.train.items
    kept = {items[number] for number in np.flatnonzero(task.kept)}
    places = [
        {item_id: place for place, item_id in enumerate(item_id for item_id in shown if item_id in kept)}
        for shown in lists
    ]
    ranks = [places[row].get(items[item], np.inf) for row, item in zip(task.owner, task.target, strict=True)]
    return np.array(ranks, dtype=np.float64)


def measure(task: Task, ranks: NDArray[np.float64]) -> Measured:
    """Return recall, NDCG and hit ratio of the ranks of a task's targets.

    The ideal of NDCG at k is min(k, targets) hits on top.
    """
    size = np.diff(task.offsets)
    asked = size > 0
    owner = task.owner

    def hits(k: int) -> NDArray[np.float64]:
        return np.bincount(owner, ranks < k, minlength=len(size))[asked].astype(np.float64)

    gain = np.where(ranks < _TOP, 1 / np.log2(ranks + 2), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(_TOP) + 2))[np.minimum(size[asked], _TOP) - 1]
    values = {
        "recall_at_10": hits(_TOP) / size[asked],
        "ndcg_at_10": np.bincount(owner, gain, minlength=len(size))[asked] / ideal,
        "phr_at_10": (hits(_TOP) > 0).astype(np.float64),
        "recall_at_20": hits(_MORE) / size[asked],
    }
    recall = np.array([(hits(k) / size[asked]).mean() if asked.any() else 0.0 for k in range(1, _CURVE + 1)])
    return Measured(values, int((~asked).sum()), recall)
