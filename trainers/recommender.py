"""What all recommenders have in common: a score of every item for a history."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from trainers.base import Estimator, offsets_of, rows_of
from trainers.dataset import Dataset

NOBODY = np.uint32(0xFFFFFFFF)
"""Visitor of a history that belongs to no visitor of the data set, e.g. a new session."""


@dataclass(frozen=True)
class Queries:
    """Histories to recommend for, each in order of time.

    Attributes
    ----------
    visitor : NDArray[np.uint32] of shape (n,)
        Position in `Dataset.visitors`, or `NOBODY`.
    offsets : NDArray[np.int64] of shape (n + 1,)
        History `i` is the entries `offsets[i]` to `offsets[i + 1]` of the arrays below.
    item : NDArray[np.uint32] of shape (n_entries,)
        Position in `Dataset.items`.
    action : NDArray[np.uint8] of shape (n_entries,)
        Number of `EventType`.
    time_ms : NDArray[np.int64] of shape (n_entries,)
        When; equal times have no order of their own.
    n_items : int
        Size of the item table.
    """

    visitor: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    item: NDArray[np.uint32]
    action: NDArray[np.uint8]
    time_ms: NDArray[np.int64]
    n_items: int

    def __len__(self) -> int:
        return len(self.visitor)

    @property
    def owner(self) -> NDArray[np.int64]:
        """Number of the history that every entry belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def age(self) -> NDArray[np.int64]:
        """Steps of every entry before the newest of its history: later moments there, so equal times share one."""
        owner = self.owner
        step = (np.diff(owner, append=-1) == 0) & (np.diff(self.time_ms, append=0) != 0)
        later = np.cumsum(step[::-1])[::-1]
        newest = np.append(later, 0)[self.offsets[1:] - 1]
        return np.asarray(later - newest[owner], np.int64)

    def recency(self, decay: float, window: int) -> NDArray[np.float32]:
        """Return the weight `decay ** age` of every entry, 0 from `window` steps on."""
        age = self.age
        return np.where(age < window, np.power(decay, age), 0.0).astype(np.float32)

    def batch(self, start: int, stop: int) -> "Queries":
        """Return the histories `start` to `stop`."""
        first, last = self.offsets[start], self.offsets[min(stop, len(self))]
        return Queries(
            visitor=self.visitor[start:stop],
            offsets=self.offsets[start : stop + 1] - first,
            item=self.item[first:last],
            action=self.action[first:last],
            time_ms=self.time_ms[first:last],
            n_items=self.n_items,
        )

    def matrix(self, weight: NDArray[np.float32] | None = None) -> sparse.csr_matrix:
        """Return the summed weight of each item in each history, shape (n, n_items); without `weight`, its count."""
        values = np.ones(len(self.item), np.float32) if weight is None else weight
        matrix = sparse.csr_matrix((values, self.item, self.offsets), shape=(len(self), self.n_items))
        matrix.sum_duplicates()
        return matrix


def queries_of(dataset: Dataset, visitors: NDArray[np.uint32]) -> Queries:
    """Return the history of each of `visitors`, ascending: all its rows, none if there are none."""
    rows = dataset.where(np.isin(dataset.visitor, visitors))
    lengths = np.bincount(np.searchsorted(visitors, rows.visitor), minlength=len(visitors))
    return Queries(
        visitor=visitors.astype(np.uint32),
        offsets=offsets_of(lengths),
        item=rows.item,
        action=rows.action,
        time_ms=rows.time_ms,
        n_items=dataset.n_items,
    )


def interactions(dataset: Dataset) -> sparse.csr_matrix:
    """Return 1 where a visitor has a row of an item, shape (n_visitors, n_items), float32.

    Raises
    ------
    ValueError
        When the data hold no row.

    >>> from trainers.toy import toy
    >>> interactions(toy()).toarray()[0]
    array([1., 1., 0., 0., 1., 0.], dtype=float32)
    """
    rows = rows_of(dataset)
    shape = (dataset.n_visitors, dataset.n_items)
    table = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows.visitor, rows.item)), shape=shape)
    table.sum_duplicates()
    table.data[:] = 1
    return table


def unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the rows at length 1, so that their products are cosines; rows of zeros stay."""
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(length, 1e-12)) @ matrix


class Recommender(Estimator):
    """Estimator that scores every item for a history.

    Examples
    --------
    >>> import polars as pl
    >>> from trainers.item_to_item import ItemKnn
    >>> views = [("ann", "bread"), ("ann", "butter"), ("ben", "bread"), ("ben", "butter"), ("cleo", "bread")]
    >>> events = pl.DataFrame(views, schema=["visitor_id", "item_id"], orient="row").with_columns(
    ...     pl.lit("view").alias("event_type"), pl.int_range(5).alias("time_ms"), pl.int_range(5).alias("event_id")
    ... )
    >>> dataset = Dataset.from_frames(events)
    >>> queries = queries_of(dataset, visitors=np.array([dataset.visitors.index("cleo")]))
    >>> items, scores = ItemKnn(shrink=0.0).fit(dataset).recommend(queries, k=1)
    >>> [[dataset.items[item] for item in row] for row in items]
    [['butter']]
    """

    @abstractmethod
    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the score of every item for every history, shape (n, n_items); -inf never ranks.

        A score depends on its own history only, never on the rest of the batch.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """

    def recommend(self, queries: Queries, k: int = 10) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Return the best items of every history and their scores, best first; ties break by position.

        Items of the history are among them where the model scores them high. A score of -inf says that the item does
        not rank.

        Parameters
        ----------
        queries : Queries
        k : int
            Items of each history, at least 1; all there are where these are fewer.

        Returns
        -------
        tuple[NDArray[np.uint32], NDArray[np.float32]]
            Positions in `Dataset.items`, and scores, both of shape (n, k).

        Raises
        ------
        NotFittedError
            Before `fit`.
        ValueError
            When `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; give a positive number of items")
        scores = self.score(queries)
        items = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return items.astype(np.uint32), np.take_along_axis(scores, items, axis=1)
