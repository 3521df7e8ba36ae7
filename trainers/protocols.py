"""Fixed questions that models are compared by: what is in the next basket after a moment."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainers.base import offsets_of
from trainers.dataset import Dataset


@dataclass(frozen=True)
class Task:
    """Visitors with the items of their next basket.

    Attributes
    ----------
    train : Dataset
        Kept rows before the split: all that a model may read.
    kept : NDArray[np.bool_] of shape (n_items,)
        Items that are asked for; every one of them is a candidate.
    visitor : NDArray[np.uint32] of shape (n,)
        Visitors asked about, ascending.
    offsets : NDArray[np.int64] of shape (n + 1,)
        Visitor `i` buys `target[offsets[i]:offsets[i + 1]]`.
    target : NDArray[np.uint32]
    explore : bool
        Whether only items count that the visitor did not buy before; a visitor may then have no target.
    """

    train: Dataset
    kept: NDArray[np.bool_]
    visitor: NDArray[np.uint32]
    offsets: NDArray[np.int64]
    target: NDArray[np.uint32]
    explore: bool = False

    @property
    def owner(self) -> NDArray[np.int64]:
        """Position in `visitor` of every entry of `target`."""
        return np.repeat(np.arange(len(self.visitor)), np.diff(self.offsets))

    def of_kept_items(self) -> "Task":
        """Return the same question with an item table of those alone that are asked for, so that scores are few."""
        number = np.cumsum(self.kept) - 1
        everything = np.ones(int(self.kept.sum()), np.bool_)
        target = number[self.target].astype(np.uint32)
        return replace(self, train=self.train.of_items(self.kept), kept=everything, target=target)

    def explore_only(self) -> "Task":
        """Return the same question about items the visitor has not bought before."""
        owner = self.owner
        bought = np.unique(pair(self.train, self.train.visitor, self.train.item))
        new = ~np.isin(pair(self.train, self.visitor[owner], self.target), bought)
        size = np.bincount(owner[new], minlength=len(self.visitor))
        return replace(self, offsets=offsets_of(size), target=self.target[new], explore=True)


@dataclass(frozen=True)
class NextBasketQuestion:
    """Next basket after a moment, of every visitor who bought before it and after it.

    Parameters
    ----------
    without_categories, without_subcategories : tuple[str, ...]
        First and second levels of category paths whose items do not count, e.g. services.
    min_buyers : int
        An item counts if so many visitors bought it before the moment.
    min_baskets : int
        A visitor is asked about with so many baskets before the moment.
    min_items : int
        Least items that count in a basket that is a target.
    """

    without_categories: tuple[str, ...] = ()
    without_subcategories: tuple[str, ...] = ()
    min_buyers: int = 1
    min_baskets: int = 1
    min_items: int = 1

    def task(self, dataset: Dataset, split_ms: int, *, until_ms: int | None = None) -> Task:
        """Return the question asked of the purchases of `dataset`.

        Models see what is before `split_ms`; the target of a visitor is the first basket from there on that is large
        enough. Baskets from `until_ms` on are no target.
        """
        purchases = dataset.of("purchase")
        catalogue = dataset.catalogue
        left_out = catalogue.within(self.without_categories, 0) | catalogue.within(self.without_subcategories, 1)
        before = purchases.before(split_ms)
        buyers = np.unique(pair(before, before.visitor, before.item)) % dataset.n_items
        kept = ~left_out & (np.bincount(buyers, minlength=dataset.n_items) >= self.min_buyers)
        train = before.where(kept[before.item])
        baskets = np.unique(train.visitor.astype(np.int64) << 32 | train.basket) >> 32
        asked = np.bincount(baskets, minlength=dataset.n_visitors) >= self.min_baskets

        after = purchases.since(split_ms)
        if until_ms is not None:
            after = after.before(until_ms)
        after = after.where(kept[after.item] & asked[after.visitor])
        visitor, _, item = first_baskets(after, after.basket, self.min_items)
        shopper, size = np.unique(visitor, return_counts=True)
        return Task(train, kept, shopper, offsets_of(size), item)


ANY_SHOP = NextBasketQuestion()
"""Asks about all who came back and all that is sold."""


def tasks_of(task: Task) -> dict[str, Task]:
    """Return the two questions by the name of their set: all items, and only items that are new to the visitor."""
    return {"all": task, "explore": task.explore_only()}


def pair(dataset: Dataset, visitor: NDArray[np.uint32], item: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return one number for each visitor and item."""
    return visitor.astype(np.int64) * dataset.n_items + item


def first_baskets(
    rows: Dataset, basket: NDArray[np.integer], min_lines: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """Return visitor, basket and item of the distinct lines of each visitor's first basket with `min_lines` items.

    `basket` numbers the baskets of `rows` in order of time for each visitor.
    """
    lines = np.unique(np.stack([rows.visitor, basket, rows.item], axis=1).astype(np.int64), axis=0)
    baskets, size = np.unique(lines[:, 1], return_counts=True)
    lines = lines[np.isin(lines[:, 1], baskets[size >= min_lines])]
    _, first = np.unique(lines[:, 0], return_index=True)
    lines = lines[np.isin(lines[:, 1], lines[first, 1])]
    visitor, numbers, item = lines.astype(np.uint32).T
    return visitor, numbers, item
