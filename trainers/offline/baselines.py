"""Trivial recommenders that every other one has to beat."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainers.base import Progress, no_progress, rows_of
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender

_MIX = np.uint64(0x9E3779B97F4A7C15)


class Random(Recommender):
    """A random order of all items, another one for every history.

    Parameters
    ----------
    seed : int

    Attributes
    ----------
    salt_ : NDArray[np.uint64] of shape (n_items,)

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Random().fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'filters']]
    """

    salt_: NDArray[np.uint64]

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Draw a number for each item."""
        rows_of(dataset)
        self.salt_ = np.random.default_rng(self.seed).integers(2**64, size=dataset.n_items, dtype=np.uint64)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return a hash of history and item, from 0 to 1."""
        salt = self.fitted("salt_")
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(salt[queries.item] * _MIX, dtype=np.uint64)])
        own = np.diff(sums[queries.offsets]) + queries.visitor.astype(np.uint64)
        mixed = (salt[None, :] ^ (own * _MIX)[:, None]) * _MIX
        return np.asarray((mixed >> np.uint64(40)) / 2**24, np.float32)


class MostPopular(Recommender):
    """Number of rows of each item, the same for everybody.

    Attributes
    ----------
    counts_ : NDArray[np.float32] of shape (n_items,)

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = MostPopular().fit(toy()).recommend(question("milk"), k=2)
    >>> names(items)
    [['bread', 'coffee']]
    """

    counts_: NDArray[np.float32]

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count the rows. O(rows)."""
        self.counts_ = np.bincount(rows_of(dataset).item, minlength=dataset.n_items).astype(np.float32)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the counts."""
        return np.tile(self.fitted("counts_"), (len(queries), 1))


class HistoryPopular(MostPopular):
    """Number of times an item is in the history, then its number of rows: personal or session popularity.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = HistoryPopular().fit(toy()).recommend(question("coffee"), k=2)
    >>> names(items)
    [['coffee', 'bread']]
    """

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return count in the history plus share of the greatest count, below one."""
        counts = self.fitted("counts_")
        return np.asarray(queries.matrix().toarray() + counts / (counts.max(initial=0) + 1), np.float32)
