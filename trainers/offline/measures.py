"""Measures of a model on questions: accuracy by full ranking, and whom the lists leave out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.evaluate import BATCH, at_cut
from trainers.offline.questions import Questions
from trainers.recommender import Recommender

CUTS = (10, 20)
"""Lengths of the lists that are measured."""


@dataclass(frozen=True)
class Answers:
    """What a model answered.

    Attributes
    ----------
    ranks : NDArray[np.float64] of shape (n_targets,)
        Place from 0 of every target among all items, ties at their middle; infinity where it does not rank.
    lists : NDArray[np.uint32] of shape (n, k)
        The best items of every question, best first; k is the longest cut or the number of items.
    """

    ranks: NDArray[np.float64]
    lists: NDArray[np.uint32]


def answers(model: Recommender, questions: Questions, *, filter_seen: bool) -> Answers:
    """Return ranks and lists of a fitted model; with `filter_seen` the items of a history do not rank."""
    length = min(max(CUTS), questions.queries.n_items)
    parts = list(_batches(model, questions, filter_seen=filter_seen, length=length))
    return Answers(np.concatenate([ranks for ranks, _ in parts]), np.concatenate([lists for _, lists in parts]))


def accuracy(model: Recommender, questions: Questions, *, filter_seen: bool) -> dict[str, float]:
    """Return R, N, M and F1 of a fitted model, without the lists that the other measures need."""
    parts = _batches(model, questions, filter_seen=filter_seen, length=0)
    return _accuracy(np.concatenate([ranks for ranks, _ in parts]), questions)


def _batches(
    model: Recommender, questions: Questions, *, filter_seen: bool, length: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.uint32]]]:
    """Yield ranks of the targets, and the `length` best items of each question, batch by batch."""
    for start in range(0, len(questions), BATCH):
        queries = questions.queries.batch(start, start + BATCH)
        scores = model.score(queries)
        if filter_seen:
            scores[queries.owner, queries.item] = -np.inf
        offsets = questions.offsets[start : start + len(queries) + 1]
        targets = questions.target[offsets[0] : offsets[-1]]
        ranks, best = core_rs.rank_targets(np.ascontiguousarray(scores), offsets - offsets[0], targets, length)
        yield ranks, best.reshape(len(queries), length)


def measured(found: Answers, questions: Questions, popularity: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of every measure over the questions.

    R recall, N NDCG, M reciprocal rank of the first hit and F1 the harmonic mean of precision and recall, all at k;
    coverage, the share of items that any list shows; novelty, the mean -log2 of a shown item's share in training;
    popularity_bias, how much more often than a target a shown item occurs in training (1 is no bias); absent where no
    target does.

    Parameters
    ----------
    found : Answers
    questions : Questions
    popularity : NDArray[np.float64] of shape (n_items,)
        Rows of each item in training.

    References
    ----------
    Järvelin and Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques (NDCG).
    Vargas and Castells 2011, Rank and relevance in novelty and diversity metrics for recommender systems (novelty).
    Abdollahpouri, Mansoury, Burke and Mobasher 2019, The unfairness of popularity bias in recommendation.
    """
    return _accuracy(found.ranks, questions) | _beyond_accuracy(found, questions, popularity)


def _accuracy(ranks: NDArray[np.float64], questions: Questions) -> dict[str, float]:
    size = np.diff(questions.offsets)
    first = np.minimum.reduceat(ranks, questions.offsets[:-1])
    values: dict[str, float] = {}
    for k in CUTS:
        hits, ndcg = at_cut(ranks, questions.offsets, k)
        values[f"R@{k}"] = float(np.mean(hits / size))
        values[f"N@{k}"] = float(np.mean(ndcg))
        values[f"M@{k}"] = float(np.mean(np.where(first < k, 1 / (first + 1), 0.0)))
        values[f"F1@{k}"] = float(np.mean(2 * hits / (k + size)))
    return values


def _beyond_accuracy(found: Answers, questions: Questions, popularity: NDArray[np.float64]) -> dict[str, float]:
    k = max(CUTS)  # shorter lists are all there is
    shown = popularity[found.lists]
    share = np.maximum(shown, 1) / max(popularity.sum(), 1)
    values = {
        f"coverage@{k}": len(np.unique(found.lists)) / len(popularity),
        f"novelty@{k}": float(np.mean(-np.log2(share))),
    }
    if of_targets := popularity[questions.target].mean():
        values[f"popularity_bias@{k}"] = float(shown.mean() / of_targets)
    return values
