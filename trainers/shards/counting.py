"""Item-to-item and next-basket lists from shards, equal to those of one process to the last bit.

Pairs of items are counted as integers and scored when all shards are added up. Vectors of visitors need no other
shard; what reads them all has them in one order. So neither the number of shards nor the order of tasks shows.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import Progress, once_a_basket
from trainers.dataset import ACTIONS, Dataset, Facts
from trainers.item_to_item import ItemKnn
from trainers.shards.source import Source
from trainers.shards.workers import Promise, Workers
from trainers.visitor_lists import Lists, VisitorLists

Integers = NDArray[np.uint32]
Span = tuple[int, int]
"""First and end of the items or visitors that a task is about."""

PAIRS_AT_ONCE: Final = 16_000_000
"""Pairs of a span of items that all shards together may have counted before they are scored; 8 bytes each."""
_VISITORS_AT_ONCE: Final = 20_000
_SPANS_AHEAD: Final = 2
"""Spans that are counted before the first of them is taken, so that workers do not wait."""


@dataclass(frozen=True)
class Shards:
    """Event lines of all visitors, as promises of one data set a shard, whose rows index the tables of all.

    Attributes
    ----------
    visitors, items : list[str]
        Id tables, as `Dataset.from_frames` makes them of all lines.
    actions : set[int]
        Numbers of the event types that there are.
    parts : list[Promise]
    workers : Workers
    about : Facts
    """

    visitors: list[str]
    items: list[str]
    actions: frozenset[int]
    parts: list[Promise]
    workers: Workers
    about: Facts

    @classmethod
    def read(cls, source: Source, count: int, workers: Workers, progress: Progress) -> "Shards":
        """Let every shard be read by a task, and number visitors and items through.

        Raises
        ------
        TablesError
            When the server of the tables does not answer.
        ValueError
            When the tables hold no line with an item.
        """
        catalogue = source.catalogue()
        read = [workers.run(_read, source, number, count) for number in range(count)]
        told = workers.results([workers.run(_told, part) for part in read], progress)
        if not any(one.visitors for one in told):
            raise ValueError("the tables hold no event with an item; import events first")
        items = catalogue + sorted(set().union(*(one.items for one in told)) - set(catalogue))
        visitors = sorted(set().union(*(one.visitors for one in told)))
        places = [{name: place for place, name in enumerate(names)} for names in (visitors, items)]
        parts = []
        for part, one in zip(read, told, strict=True):
            maps = (
                np.array([place[name] for name in names], np.uint32)
                for place, names in zip(places, (one.visitors, one.items), strict=True)
            )
            parts.append(workers.run(_numbered, part, *maps))
        actions = frozenset[int]().union(*(one.actions for one in told))
        return cls(visitors, items, actions, parts, workers, _added(told))

    def facts(self) -> Facts:
        """Return what the lines are about."""
        return self.about

    def have(self, actions: Sequence[str]) -> bool:
        """Return whether there is a line of one of these event types."""
        return not self.actions.isdisjoint(ACTIONS[name] for name in actions)

    def fit_neighbours(self, model: ItemKnn, progress: Progress) -> None:
        """Fit `model` as its `fit` would on all lines; ValueError where its measure needs more than counts."""
        run, n_items = self.workers.run, len(self.items)
        rows = [run(_pairs, part, model.by, model.actions) for part in self.parts]
        extents = self.workers.results([run(_extent, part, n_items) for part in rows], lambda _: None)
        sizes = np.sum([one[0] for one in extents], axis=0, dtype=np.uint32)
        spans = spans_of(np.sum([one[1] for one in extents], axis=0), PAIRS_AT_ONCE)
        options = {"measure": model.measure, "k": model.k, "shrink": model.shrink, "alpha": model.alpha}

        def begin(span: Span) -> Promise:
            counted = [run(_count, part, n_items, span) for part in rows]
            return run(_neighbours, options, sizes, span[0], *counted)

        model.keep(joined(list(self._ahead(begin, spans, _SPANS_AHEAD, progress))))

    def fit_lists(self, model: VisitorLists, progress: Progress) -> None:
        """Fit `model` as its `fit` would on all lines."""
        run, shape = self.workers.run, (len(self.visitors), len(self.items))
        step = min(_VISITORS_AT_ONCE, -(-shape[0] // len(self.parts)))
        vectors = run(_together, *(run(_vectors, part, shape, dict(model.basket_options())) for part in self.parts))
        starts = range(0, shape[0], step)
        spans = [(start, min(start + step, shape[0])) for start in starts]

        def begin(span: Span) -> Promise:
            return run(_blend, vectors, shape, span, dict(model.blend_options()))

        model.keep(joined(list(self._ahead(begin, spans, len(self.parts), progress))))

    def _ahead(
        self, begin: Callable[[Span], Promise], spans: Sequence[Span], count: int, progress: Progress
    ) -> Iterator[Lists]:
        """Yield the results of all spans in order, `count` of them begun ahead."""
        promised: deque[Promise] = deque()
        for number, span in enumerate(spans):
            promised.append(begin(span))
            if len(promised) > count:
                yield self.workers.result(promised.popleft())
                progress(number / len(spans))
        for promise in promised:
            yield self.workers.result(promise)
        progress(1.0)


def spans_of(pairs: NDArray[np.int64], at_once: int) -> list[Span]:
    """Return spans of items, each of about `at_once` `pairs` at most, or of one item.

    >>> spans_of(np.array([3, 3, 9, 1, 1]), 6)
    [(0, 2), (2, 3), (3, 5)]
    """
    spans, start, total = [], 0, 0
    for item, count in enumerate(pairs.tolist()):
        if item > start and total + count > at_once:
            spans.append((start, item))
            start, total = item, 0
        total += count
    return [*spans, (start, len(pairs))]


def joined(lists: Sequence[Lists]) -> Lists:
    """Return the lists of several spans as those of one."""
    counts = np.concatenate([np.diff(offsets) for offsets, _, _ in lists])
    offsets = np.concatenate([np.zeros(1, np.uint64), np.cumsum(counts, dtype=np.uint64)])
    return offsets, np.concatenate([one[1] for one in lists]), np.concatenate([one[2] for one in lists])


@dataclass(frozen=True)
class _Told:
    """What we must know of a shard."""

    visitors: list[str]
    items: list[str]
    actions: frozenset[int]
    facts: Facts


def _read(source: Source, number: int, count: int) -> Dataset:
    return source.shard(number, count)


def _told(part: Dataset) -> _Told:
    return _Told(part.visitors, part.items, frozenset(np.unique(part.action).tolist()), part.facts())


def _added(told: Sequence[_Told]) -> Facts:
    """Return the facts of all shards; no event or visitor is in two."""
    facts = [one.facts for one in told]
    return Facts(
        start_ms=min(one.start_ms for one in facts),
        end_ms=max(one.end_ms for one in facts),
        event_count=sum(one.event_count for one in facts),
        visitor_count=sum(one.visitor_count for one in facts),
        item_count=len(set().union(*(one.items for one in told))),
    )


def _numbered(part: Dataset, visitors: Integers, items: Integers) -> Dataset:
    """Return the rows by the numbers of all shards, whose id tables are elsewhere."""
    return replace(part, visitors=[], items=[], visitor=visitors[part.visitor], item=items[part.item])


def _pairs(part: Dataset, by: str, actions: Sequence[str]) -> tuple[Integers, Integers]:
    """Return the distinct rows (visitors or baskets, numbered within the shard) and items of the table to count."""
    rows = part.of(*actions) if actions else part
    of = rows.visitor if by == "visitor" else rows.basket
    pairs = np.unique(of.astype(np.uint64) << np.uint64(32) | rows.item)
    numbers = np.unique(pairs >> np.uint64(32), return_inverse=True)[1]
    return numbers.astype(np.uint32), pairs.astype(np.uint32)


def _extent(rows: tuple[Integers, Integers], n_items: int) -> tuple[Integers, NDArray[np.int64]]:
    """Return the rows of each item, and how many pairs it may have at most."""
    of, item = rows
    sizes = np.bincount(item, minlength=n_items)
    pairs = np.bincount(item, np.bincount(of)[of] if len(of) else None, minlength=n_items)
    return sizes.astype(np.uint32), np.minimum(pairs, n_items).astype(np.int64)


def _count(rows: tuple[Integers, Integers], n_items: int, span: Span) -> Any:
    of, item = rows
    return core_rs.count_pairs(of, item, (int(of.max(initial=0)) + 1, n_items), span)


def _neighbours(options: dict[str, Any], sizes: Integers, first: int, *counted: Any) -> Lists:
    return core_rs.neighbours_of_pairs(list(counted), sizes, first, **options)


def _vectors(part: Dataset, shape: tuple[int, int], decay: dict[str, Any]) -> Any:
    """Return visitors, items and values of the shard's own vectors."""
    rows = once_a_basket(part.of("purchase"))
    visitors, local = np.unique(rows.visitor, return_inverse=True)
    own = (len(visitors), shape[1])
    of, items, values = core_rs.basket_vectors(local.astype(np.uint32), rows.basket, rows.item, own, **decay)
    return visitors[of], items, values


def _together(*vectors: Any) -> Any:
    return tuple(np.concatenate(columns) for columns in zip(*vectors, strict=True))


def _blend(vectors: Any, shape: tuple[int, int], span: Span, choice: dict[str, Any]) -> Lists:
    of, items, values = vectors
    return core_rs.blend_baskets(of, items, values, shape, span, **choice)
