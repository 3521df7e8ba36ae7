"""What models are asked: histories, each with the items that came next."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainers.base import offsets_of
from trainers.dataset import Dataset
from trainers.recommender import NOBODY, Queries, queries_of


@dataclass(frozen=True)
class Questions:
    """Histories with their answers.

    Attributes
    ----------
    queries : Queries
        What a model may read of each history.
    offsets : NDArray[np.int64] of shape (n + 1,)
        History `i` goes on with `target[offsets[i]:offsets[i + 1]]`, at least one item, in no order.
    target : NDArray[np.uint32]
        Position in `Dataset.items`.
    """

    queries: Queries
    offsets: NDArray[np.int64]
    target: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, chosen: NDArray[np.int64]) -> "Questions":
        """Return the questions of these numbers, ascending."""
        queries = self.queries
        entries, offsets = _entries(queries.offsets, chosen)
        targets, target_offsets = _entries(self.offsets, chosen)
        taken = Queries(
            visitor=queries.visitor[chosen],
            offsets=offsets,
            item=queries.item[entries],
            action=queries.action[entries],
            time_ms=queries.time_ms[entries],
            n_items=queries.n_items,
        )
        return Questions(taken, target_offsets, self.target[targets])

    def sample(self, count: int, seed: int = 0) -> "Questions":
        """Return at most `count` of the questions, drawn by `seed`."""
        if len(self) <= count:
            return self
        return self.take(np.sort(np.random.default_rng(seed).choice(len(self), count, replace=False)))


_NEEDS = {
    "loo": "give more visitors, and three items or more of each",
    "sessions": "give more sessions, of two items or more; the newest tenth of those to learn from is to choose by",
    "sets": "give visitors several items each to learn from, and to test items that are among these for others",
    "baskets": "give visitors several baskets each: a table with times, or a line for each basket of a visitor",
}


class Fold(NamedTuple):
    """A part of the training data that is held out to choose by.

    Attributes
    ----------
    train : Dataset
        What a model learns from before it is asked; all of `Split.train` where that holds no answer.
    questions : Questions
    """

    train: Dataset
    questions: Questions


@dataclass(frozen=True)
class Split:
    """One protocol on one file: what models learn from and what they are asked.

    Attributes
    ----------
    protocol : str
        `loo`, `sessions`, `sets` or `baskets`.
    data : str
        Name of the file.
    train : Dataset
        All that a model may learn from before it is asked `test`.
    test : Questions
    folds : tuple[Fold, ...]
        What chooses hyper-parameters, weights and models; several where one asks too few questions.
    filter_seen : bool
        Whether items of the history do not rank.
    left_out : int
        Histories without a test item.

    Raises
    ------
    ValueError
        Where the file is too small to learn from, to choose by or to ask about; the text says which.
    """

    protocol: str
    data: str
    train: Dataset
    test: Questions
    folds: tuple[Fold, ...]
    filter_seen: bool
    left_out: int

    def __post_init__(self) -> None:
        needs = _NEEDS[self.protocol]
        for part, size in (
            ("to learn from", min(len(self.train), *(len(fold.train) for fold in self.folds))),
            ("to choose models by", min(len(fold.questions) for fold in self.folds)),
            ("to test them with", len(self.test)),
        ):
            if not size:
                raise ValueError(f"{self.data} leaves nothing {part} under the protocol `{self.protocol}`; {needs}")

    @property
    def has_ties(self) -> bool:
        """Whether a visitor's rows share a time, so that their order is drawn."""
        train = self.train
        return bool(np.any((np.diff(train.visitor.astype(np.int64)) == 0) & (np.diff(train.time_ms) == 0)))

    @property
    def of_visitors(self) -> bool:
        """Whether the histories of the test are of visitors that are learnt from."""
        return bool(np.any(self.test.queries.visitor != NOBODY))

    @property
    def goal(self) -> str:
        """Measure that models are chosen by."""
        return {"loo": "N@10", "sessions": "M@20"}.get(self.protocol, "N@20")


def asked(history: Dataset, target: Dataset) -> Questions:
    """Return one question for each visitor with rows in `target`: its rows of `history`, none if there are none."""
    visitors, sizes = np.unique(target.visitor, return_counts=True)
    return Questions(queries_of(history, visitors), offsets_of(sizes), target.item)


def _entries(offsets: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the entries of the chosen runs, and the offsets of these."""
    sizes = np.diff(offsets)[chosen]
    starts = offsets_of(sizes)
    entries = np.arange(starts[-1]) + np.repeat(offsets[chosen] - starts[:-1], sizes)
    return entries, starts
