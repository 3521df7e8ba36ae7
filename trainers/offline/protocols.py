"""The four protocols: how a file becomes what models learn from and what they are asked."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainers.base import offsets_of
from trainers.dataset import ACTIONS, Dataset
from trainers.offline.questions import Fold, Questions, Split, asked
from trainers.offline.readers import read_baskets, read_histories, read_prefixes, read_sessions
from trainers.protocols import pair
from trainers.recommender import NOBODY, Queries

_LEAST_HISTORY = 3
_FOLDS, _ENOUGH = 5, 20_000
"""Most parts of sets that choose together, and the held-out items that need no further part."""
_SHARE = 0.1
"""Part of the training sessions, of a visitor's set or of the baskets that validation takes."""


class _Prefix(NamedTuple):
    """A `readers.Prefix` by numbers of the data set."""

    items: list[int]
    actions: list[int]
    time_ms: list[int]
    target: int


def leave_one_out(path: Path, items: pl.DataFrame | None = None, *, seed: int = 0) -> Split:
    """Return next-item questions: the last item of each visitor is the test, the last but one the validation.

    Models learn from what is before both. The history of the test question holds the validation item: models read it
    there and learn nothing from it. Visitors with fewer than three rows are learnt from and not asked. An item that a
    visitor comes back to counts where it came first. Events of one time are in an order drawn by seed, the same for
    all models. What others do after a question is asked is learnt from: the protocol cuts visitor by visitor, not by
    time.
    """
    frame = read_histories(path, ordered=True, seed=seed)
    data = _distinct(Dataset.from_frames(frame, _known(items, frame)))
    size = np.bincount(data.visitor, minlength=data.n_visitors)
    place = size[data.visitor] - _place(data.visitor)
    long = size[data.visitor] >= _LEAST_HISTORY
    train = data.where(~long | (place > 2))  # noqa: PLR2004 - the last two rows are asked for
    validation = asked(train, data.where(long & (place == 2)))  # noqa: PLR2004
    test = asked(data.where(~long | (place > 1)), data.where(long & (place == 1)))
    return Split("loo", path.name, train, test, (Fold(train, validation),), True, int((size < _LEAST_HISTORY).sum()))


def sessions(train_path: Path, test_path: Path, items: pl.DataFrame | None = None, *, seed: int = 0) -> Split:
    """Return next-item questions of sessions that no model has seen; the newest tenth of training is validation.

    Every prefix of a validation session is a question; they end with the last items of each, as those of the test do.
    Events of one time are in an order drawn by seed, the same for all models.
    """
    prefixes = read_prefixes(test_path, seed=seed)
    frame = read_sessions(train_path, seed=seed)
    known = set(frame["item_id"].unique().to_list())
    new = {item for prefix in prefixes for item in (*prefix.items, prefix.target)} - known
    data = Dataset.from_frames(frame, _table(items, known | new))
    start = np.full(data.n_visitors, np.iinfo(np.int64).max)
    np.minimum.at(start, data.visitor, data.time_ms)
    newest = np.argsort(start, kind="stable")[data.n_visitors - max(int(data.n_visitors * _SHARE), 1) :]
    held = np.isin(data.visitor, newest)
    numbers = {item: number for number, item in enumerate(data.items)}
    later = [
        _Prefix([numbers[i] for i in p.items], [ACTIONS[a] for a in p.actions], p.time_ms, numbers[p.target])
        for p in prefixes
    ]
    part = data.where(held)
    bounds = np.flatnonzero(np.diff(part.visitor, prepend=np.uint32(NOBODY), append=np.uint32(NOBODY)))
    item, action, time_ms = part.item.tolist(), part.action.tolist(), part.time_ms.tolist()
    before = [
        _Prefix(item[start:end], action[start:end], time_ms[start:end], item[end])
        for start, stop in pairwise(bounds)
        for end in range(start + 1, stop)
    ]
    test, validation = (_prefix_questions(prefixes, data.n_items) for prefixes in (later, before))
    return Split("sessions", train_path.name, data, test, (Fold(data.where(~held), validation),), False, 0)


def sets(train_path: Path, test_path: Path, items: pl.DataFrame | None = None, *, seed: int = 0) -> Split:
    """Return questions about the rest of each visitor's set; validation takes a tenth of each training set, by seed.

    Where that is less than `_ENOUGH` items, up to `_FOLDS` such tenths choose together, each with models of its own.
    A visitor of one item keeps it. Items of a test set that the training set holds are not asked for. Visitors without
    a test item are left out and counted.
    """
    frames = [read_histories(path, ordered=False) for path in (train_path, test_path)]
    both = pl.concat([frame.with_columns(quantity=pl.lit(float(part))) for part, frame in enumerate(frames)])
    data = Dataset.from_frames(both, _known(items, both))
    train, rest = (_distinct(data.where(data.quantity == part)) for part in (0, 1))
    rest = rest.where(~np.isin(_pairs(rest), _pairs(train)))
    random = np.random.default_rng(seed)
    folds = [_fold(train, random)]
    while len(folds) < _FOLDS and len(folds) * len(folds[0].questions.target) < _ENOUGH:
        folds.append(_fold(train, random))
    test = asked(train, rest)
    left_out = len(np.unique(data.visitor)) - len(test)
    return Split("sets", train_path.name, train, test, tuple(folds), True, left_out)


def baskets(path: Path, items: pl.DataFrame | None = None, *, seed: int = 0) -> Split:
    """Return questions about baskets.

    Baskets of visitors: the last of each is the test, the last but one the validation, by the rules of leave one out.
    Baskets of nobody: of a fifth of those with two items or more one item is asked for by the rest, half of them as
    validation; models learn from the others. Both are drawn by seed.
    """
    frame, of_visitors = read_baskets(path)
    data = Dataset.from_frames(frame, _known(items, frame))
    return _next_baskets(path.name, data) if of_visitors else _completions(path.name, data, seed)


def _next_baskets(name: str, data: Dataset) -> Split:
    rows = np.lexsort((data.basket, data.visitor))
    pairs = np.unique(np.stack([data.visitor[rows], data.basket[rows]], axis=1), axis=0)
    count = np.bincount(pairs[:, 0], minlength=data.n_visitors)
    number = offsets_of(count)[1:][pairs[:, 0]] - np.arange(len(pairs))
    key = data.visitor.astype(np.int64) << 32 | data.basket
    place = number[np.searchsorted(pairs[:, 0].astype(np.int64) << 32 | pairs[:, 1], key)]
    long = count[data.visitor] >= _LEAST_HISTORY
    train = data.where(~long | (place > 2))  # noqa: PLR2004 - the last two baskets are asked for
    validation = asked(train, _distinct(data.where(long & (place == 2))))  # noqa: PLR2004
    test = asked(data.where(~long | (place > 1)), _distinct(data.where(long & (place == 1))))
    return Split("baskets", name, train, test, (Fold(train, validation),), False, int((count < _LEAST_HISTORY).sum()))


def _completions(name: str, data: Dataset, seed: int) -> Split:
    random = np.random.default_rng(seed)
    data = _distinct(data)
    size = np.bincount(data.visitor, minlength=data.n_visitors)
    drawn = random.permutation(np.flatnonzero(size > 1))
    tenth = int(len(drawn) * _SHARE)
    parts = drawn[:tenth], drawn[tenth : 2 * tenth]
    hidden = np.zeros(len(data), np.bool_)
    hidden[offsets_of(size)[drawn] + random.integers(0, size[drawn])] = True
    test, validation = (
        asked(data.where(of & ~hidden), data.where(of & hidden))
        for of in (np.isin(data.visitor, part) for part in parts)
    )
    train = data.where(~np.isin(data.visitor, np.concatenate(parts)))
    fold = Fold(train, _of_nobody(validation))
    return Split("baskets", name, train, _of_nobody(test), (fold,), False, int((size < 2).sum()))  # noqa: PLR2004


def _place(visitor: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return how many rows of the same visitor come before each row."""
    starts = np.flatnonzero(np.diff(visitor, prepend=NOBODY))
    sizes = np.diff(np.append(starts, len(visitor)))
    return np.arange(len(visitor)) - np.repeat(starts, sizes)


def _fold(train: Dataset, random: np.random.Generator) -> Fold:
    """Return the questions about a tenth of each visitor's rows, at least one of two."""
    shuffled = random.permutation(len(train))
    order = shuffled[np.argsort(train.visitor[shuffled], kind="stable")]
    size = np.bincount(train.visitor, minlength=train.n_visitors)
    wanted = np.minimum(np.ceil(size * _SHARE), size - 1)
    held = np.zeros(len(train), np.bool_)
    held[order[_place(train.visitor[order]) < wanted[train.visitor[order]]]] = True
    rest = train.where(~held)
    return Fold(rest, asked(rest, train.where(held)))


def _distinct(rows: Dataset) -> Dataset:
    """Return the first row of each visitor and item."""
    _, first = np.unique(_pairs(rows), return_index=True)
    kept = np.zeros(len(rows), np.bool_)
    kept[first] = True
    return rows.where(kept)


def _pairs(rows: Dataset) -> NDArray[np.int64]:
    return pair(rows, rows.visitor, rows.item)


def _of_nobody(questions: Questions) -> Questions:
    queries = questions.queries
    nobody = np.full(len(queries), NOBODY, np.uint32)
    unknown = Queries(nobody, queries.offsets, queries.item, queries.action, queries.time_ms, queries.n_items)
    return Questions(unknown, questions.offsets, questions.target)


def _prefix_questions(prefixes: list[_Prefix], n_items: int) -> Questions:
    queries = Queries(
        visitor=np.full(len(prefixes), NOBODY, np.uint32),
        offsets=offsets_of(np.array([len(prefix.items) for prefix in prefixes], np.int64)),
        item=np.array([item for prefix in prefixes for item in prefix.items], np.uint32),
        action=np.array([action for prefix in prefixes for action in prefix.actions], np.uint8),
        time_ms=np.array([moment for prefix in prefixes for moment in prefix.time_ms], np.int64),
        n_items=n_items,
    )
    return Questions(queries, np.arange(len(prefixes) + 1), np.array([prefix.target for prefix in prefixes], np.uint32))


def _known(items: pl.DataFrame | None, events: pl.DataFrame) -> pl.DataFrame | None:
    """Return what is known of the items that occur; others are no candidates."""
    return None if items is None else _table(items, set(events["item_id"].unique().to_list()))


def _table(items: pl.DataFrame | None, ids: set[str]) -> pl.DataFrame:
    table = pl.DataFrame({"item_id": sorted(ids)})
    return table if items is None else table.join(items, on="item_id", how="left", maintain_order="left")
