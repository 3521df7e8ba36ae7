"""Measures of ranked items, every visitor alike; a visitor without a target is left out and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.protocols import Task

Scorer = Callable[[NDArray[np.uint32]], NDArray[np.float32]]
"""Model of all items: from visitors (n,) to a score of every item (n, n_items); -inf never ranks."""

MEASURES = ("recall_at_10", "ndcg_at_10", "hit_rate_at_10", "recall_at_20")
"""Names of what `measure` gives."""

BATCH = 256
"""Visitors that are scored at once: all items of each are in memory."""

_TOP, _MORE, _CURVE = 10, 20, 50
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


def ranks_of_scores(tasks: Sequence[Task], score: Scorer) -> list[NDArray[np.float64]]:
    """Return, for tasks about the same visitors, the rank from 0 of every target among all items, ties at their middle.

    In an explore-only task the items a visitor bought do not compete. A target scored -inf has rank infinity.
    """
    ranks = [np.full(len(task.target), np.inf) for task in tasks]
    for start in range(0, len(tasks[0].visitor), BATCH):
        visitors = tasks[0].visitor[start : start + BATCH]
        scores = score(visitors)
        for task, found in zip(tasks, ranks, strict=True):
            offsets = task.offsets[start : start + len(visitors) + 1]
            targets = task.target[offsets[0] : offsets[-1]]
            own = np.ascontiguousarray(_competing(task, visitors, scores))
            found[offsets[0] : offsets[-1]], _ = core_rs.rank_targets(own, offsets - offsets[0], targets, 0)
    return ranks


def _competing(task: Task, visitors: NDArray[np.uint32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores, -inf where an item does not compete for a visitor."""
    scores = np.where(task.kept, scores, -np.inf)
    if task.explore:
        of_batch = np.isin(task.train.visitor, visitors)
        scores[np.searchsorted(visitors, task.train.visitor[of_batch]), task.train.item[of_batch]] = -np.inf
    return scores


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
    """Return recall, NDCG and hit rate of the ranks of a task's targets."""
    size = np.diff(task.offsets)
    asked = size > 0
    top, more = (at_cut(ranks, task.offsets, k) for k in (_TOP, _MORE))
    values = {
        "recall_at_10": top.hits[asked] / size[asked],
        "ndcg_at_10": top.ndcg[asked],
        "hit_rate_at_10": (top.hits[asked] > 0).astype(np.float64),
        "recall_at_20": more.hits[asked] / size[asked],
    }
    found = (np.bincount(task.owner, ranks < k, minlength=len(size))[asked] for k in range(1, _CURVE + 1))
    recall = np.array([(hits / size[asked]).mean() if asked.any() else 0.0 for hits in found])
    return Measured(values, int((~asked).sum()), recall)


class Cut(NamedTuple):
    """What the first places of a ranking hold, a question each: targets among them, and NDCG."""

    hits: NDArray[np.float64]
    ndcg: NDArray[np.float64]


def at_cut(ranks: NDArray[np.float64], offsets: NDArray[np.int64], k: int) -> Cut:
    """Return what the first `k` places hold; the ideal of NDCG is min(k, targets) hits on top.

    Parameters
    ----------
    ranks : shape (n_targets,); from 0, infinity where a target does not rank
    offsets : shape (n + 1,); targets `offsets[i]` to `offsets[i + 1]` are those of question `i`
    k : at least 1

    References
    ----------
    Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques, section 2.
    """
    size = np.diff(offsets)
    owner = np.repeat(np.arange(len(size)), size)
    gain = np.where(ranks < k, 1 / np.log2(ranks + 2), 0.0)
    ideal = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.clip(size, 1, k) - 1]
    hits, gains = (np.bincount(owner, values, minlength=len(size)).astype(np.float64) for values in (ranks < k, gain))
    return Cut(hits, gains / ideal)
