"""Lists of items for each visitor, learnt from purchases: frequencies of the visitor's own, blended with others'."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import core_rs
from trainers.base import Array, Progress, Trainer, no_progress, once_a_basket, rows_of
from trainers.dataset import Dataset
from trainers.recommender import NOBODY, Queries, Recommender, unit_rows

Lists = tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]
"""Offsets, items and scores."""


class VisitorLists(Recommender, Trainer):
    """Trainer of one list a visitor, from all baskets; a history is scored as a visitor's own would be.

    Attributes
    ----------
    offsets_ : NDArray[np.uint64] of shape (n_visitors + 1,)
    items_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, best first for each visitor.
    scores_ : NDArray[np.float32] of shape (n_entries,)
    vectors_ : scipy.sparse.csr_matrix of shape (n_visitors, n_items)
        How often each visitor had each item, by the age of the baskets.
    """

    file: ClassVar[str]
    actions: tuple[str, ...]
    offsets_: NDArray[np.uint64]
    items_: NDArray[np.uint32]
    scores_: NDArray[np.float32]
    vectors_: sparse.csr_matrix

    @abstractmethod
    def basket_options(self) -> Mapping[str, Any]:
        """Return how baskets of a visitor weigh: `n_groups`, `within` and `across`."""

    @abstractmethod
    def blend_options(self) -> Mapping[str, Any]:
        """Return how other visitors count: `neighbours`, `alpha`, `length` and `only_new`."""

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Learn from the baskets. O(sum over items of visitors²) for the exact search."""
        rows = once_a_basket(rows_of(dataset, *self.actions))
        shape = (dataset.n_visitors, dataset.n_items)
        entries = core_rs.basket_vectors(rows.visitor, rows.basket, rows.item, shape, **self.basket_options())
        self.keep(core_rs.blend_baskets(*entries, shape, (0, shape[0]), **self.blend_options()))
        self.vectors_ = _matrix(entries, shape)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return what the lists would say of each history, whose moments are its baskets; its visitor is no neighbour.

        Visitors as near as the last neighbour count too. Items of the history score 0 where lists leave them out.
        """
        learnt, choice = self.fitted("vectors_"), self.blend_options()
        own = self._vectors_of(queries)
        alike = (unit_rows(own) @ unit_rows(learnt).T).toarray()
        known = np.flatnonzero(queries.visitor != NOBODY)
        alike[known, queries.visitor[known]] = 0
        blended = choice["alpha"] * own + (1 - choice["alpha"]) * (_shares(alike, choice["neighbours"]) @ learnt)
        scores = np.asarray(blended.toarray(), np.float32)
        if choice["only_new"]:
            scores[queries.owner, queries.item] = 0
        return scores

    def keep(self, lists: Lists) -> None:
        """Set the fitted attributes that are exported."""
        self.offsets_, self.items_, self.scores_ = lists

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, items and scores of the one file."""
        return {self.file: {name: self.fitted(f"{name}_") for name in ("offsets", "items", "scores")}}

    def _vectors_of(self, queries: Queries) -> sparse.csr_matrix:
        """Return the vector of each history, whose moments are its baskets."""
        basket = queries.age.max(initial=0) - queries.age
        n_baskets, n_items = int(basket.max(initial=0)) + 1, queries.n_items
        lines = np.unique((queries.owner * n_baskets + basket) * n_items + queries.item)
        baskets, items = np.divmod(lines, n_items)
        visitors, baskets, items = (
            column.astype(np.uint32) for column in (baskets // n_baskets, baskets % n_baskets, items)
        )
        shape = (len(queries), n_items)
        return _matrix(core_rs.basket_vectors(visitors, baskets, items, shape, **self.basket_options()), shape)


def _matrix(
    entries: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]], shape: tuple[int, int]
) -> sparse.csr_matrix:
    rows, columns, values = entries
    return sparse.csr_matrix((values, (rows, columns)), shape=shape)


def _shares(alike: NDArray[np.float32], count: int) -> sparse.csr_matrix:
    """Return, for each row, one over their number for the `count` greatest values that are above 0, and those tied."""
    near = alike > 0
    if alike.shape[1] > count:
        near &= alike >= np.partition(alike, -count, axis=1)[:, -count, None]
    return sparse.csr_matrix(near / np.maximum(near.sum(axis=1, keepdims=True), 1), dtype=np.float32)
