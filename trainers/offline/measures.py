"""Measures of a model on questions: accuracy by full ranking, and whom the lists leave out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.evaluate import mid_tie_ranks
from trainers.offline.questions import Questions
from trainers.recommender import Recommender

CUTS = (10, 20)
"""Lengths of the lists that are measured."""

_BATCH = 256


@dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes
    ----------
    ranks : NDArray[np.float64] of shape (n_targets,)
        Place from 0 of every target among all items, ties at their middle; infinity where it does not rank.
    lists : NDArray[np.uint32] of shape (n, k)
        The best items of every question, in no order; k is the longest cut or the number of items.
    """

    ranks: NDArray[np.float64]
    lists: NDArray[np.uint32]


def answers(model: Recommender, questions: Questions, *, filter_seen: bool) -> Answers:
    """Return ranks and lists of a fitted model; with `filter_seen` the items of a history do not rank."""
    ranks = np.empty(len(questions.target))
    length = min(max(CUTS), questions.queries.n_items)
    lists = np.empty((len(questions), length), np.uint32)
    for start in range(0, len(questions), _BATCH):
        queries = questions.queries.batch(start, start + _BATCH)
        scores = model.score(queries)
        if filter_seen:
            scores[queries.owner, queries.item] = -np.inf
        offsets = questions.offsets[start : start + len(queries) + 1]
        ranks[offsets[0] : offsets[-1]] = _ranks(scores, offsets, questions.target)
        lists[start : start + len(queries)] = np.argpartition(scores, -length, axis=1)[:, -length:]
    return Answers(ranks, lists)


def measured(found: Answers, questions: Questions, popularity: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of every measure over the questions.

    R recall, N NDCG (the ideal is min(k, targets) hits on top), M reciprocal rank of the first hit and F1 the harmonic
    mean of precision and recall, all at k; coverage, the share of items that any list shows; novelty, the mean
    -log2 of a shown item's share in training; popularity_bias, how much more often than a target a shown item occurs
    in training (1 is no bias).

    Parameters
    ----------
    found : Answers
    questions : Questions
    popularity : shape (n_items,); rows of each item in training
    """
    size = np.diff(questions.offsets)
    owner = np.repeat(np.arange(len(size)), size)
    values: dict[str, float] = {}
    for k in CUTS:
        hits = np.bincount(owner, found.ranks < k, minlength=len(size))
        gain = np.where(found.ranks < k, 1 / np.log2(found.ranks + 2), 0.0)
        ideal = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(size, k) - 1]
        first = np.minimum.reduceat(found.ranks, questions.offsets[:-1])
        values[f"R@{k}"] = float(np.mean(hits / size))
        values[f"N@{k}"] = float(np.mean(np.bincount(owner, gain, minlength=len(size)) / ideal))
        values[f"M@{k}"] = float(np.mean(np.where(first < k, 1 / (first + 1), 0.0)))
        values[f"F1@{k}"] = float(np.mean(2 * hits / (k + size)))
    return values | _beyond_accuracy(found, questions, popularity)


def _beyond_accuracy(found: Answers, questions: Questions, popularity: NDArray[np.float64]) -> dict[str, float]:
    k = found.lists.shape[1]
    shown = popularity[found.lists]
    share = np.maximum(shown, 1) / max(popularity.sum(), 1)
    return {
        f"coverage@{k}": len(np.unique(found.lists)) / len(popularity),
        f"novelty@{k}": float(np.mean(-np.log2(share))),
        f"popularity_bias@{k}": float(shown.mean() / max(popularity[questions.target].mean(), 1e-9)),
    }


def _ranks(scores: NDArray[np.float32], offsets: NDArray[np.int64], target: NDArray[np.uint32]) -> NDArray[np.float64]:
    if offsets[-1] - offsets[0] == len(scores):
        own = scores[np.arange(len(scores)), target[offsets[:-1]]][:, None]
        above, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
        return np.where(np.isfinite(own[:, 0]), above + (equal - 1) / 2, np.inf)
    rows = zip(scores, offsets[:-1], offsets[1:], strict=True)
    return np.concatenate([mid_tie_ranks(row, target[start:end]) for row, start, end in rows])
