"""Weights of a blend, chosen on validation alone: first by likelihood, then by the measure itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trainers.blend import FORMS, forms
from trainers.evaluate import BATCH
from trainers.offline.questions import Fold, Questions, Split
from trainers.recommender import Recommender

_CANDIDATES = 250
_RIDGE = 1e-3
_FACTORS = (0.0, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0)
_ROUNDS = 2


@dataclass(frozen=True)
class _Table:
    """Members' scores of the best candidates of every question.

    Attributes
    ----------
    features : NDArray[np.float32] of shape (members * FORMS, n, candidates)
    hit : NDArray[np.bool_] of shape (n, candidates)
    size : NDArray[np.int64] of shape (n,)
        Targets of each question, candidates or not.
    cut : int
        Length of the lists that the goal measures.
    """

    features: NDArray[np.float32]
    hit: NDArray[np.bool_]
    size: NDArray[np.int64]
    cut: int


def best_weights(members: Sequence[Sequence[Recommender]], split: Split, folds: Sequence[Fold]) -> tuple[float, ...]:
    """Return the weights, at least 0, of the members fitted on each fold, for the questions of all.

    Candidates are the items that any member scores best. Weights maximise the likelihood of the targets under a softmax
    over candidates; then each in turn takes the factor that lifts the split's measure.

    Parameters
    ----------
    members : Sequence[Sequence[Recommender]]
        Fitted models of each fold, in one order.
    split : Split
    folds : Sequence[Fold]
        Whose questions choose.

    Returns
    -------
    tuple[float, ...]
        `FORMS` for each member, one member after the other; the greatest is 1.

    References
    ----------
    Metzler and Croft 2007, Linear feature-based models for information retrieval (coordinate ascent).
    """
    tables = [_table(own, split, fold.questions) for own, fold in zip(members, folds, strict=True)]
    table = _Table(
        np.concatenate([part.features for part in tables], axis=1),
        np.concatenate([part.hit for part in tables]),
        np.concatenate([part.size for part in tables]),
        tables[0].cut,
    )
    start = np.full(len(table.features), 1.0)
    fitted = minimize(
        _loss,
        start,
        _found(table),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * len(start),
        options={"maxiter": 60},
    )
    goal = _reciprocal if split.goal.startswith("M") else _discounted
    weights = _climbed(fitted.x, table, goal)
    return tuple(float(weight) for weight in weights / max(weights.max(), 1e-12))


def _table(members: Sequence[Recommender], split: Split, questions: Questions) -> _Table:
    width = min(_CANDIDATES, questions.queries.n_items)
    features = np.empty((FORMS * len(members), len(questions), width), np.float32)
    hit = np.zeros((len(questions), width), np.bool_)
    for start in range(0, len(questions), BATCH):
        queries = questions.queries.batch(start, start + BATCH)
        full = [form for member in members for form in forms(member.score(queries))]
        reach = np.maximum.reduce(full[1::FORMS])
        if split.filter_seen:
            reach[queries.owner, queries.item] = -1
        chosen = np.argpartition(reach, -width, axis=1)[:, -width:]
        rows = slice(start, start + len(queries))
        for column, form in enumerate(full):
            features[column, rows] = np.take_along_axis(form, chosen, axis=1)
        wanted = np.zeros(reach.shape, np.bool_)
        offsets = questions.offsets[start : start + len(queries) + 1]
        wanted[np.repeat(np.arange(len(queries)), np.diff(offsets)), questions.target[offsets[0] : offsets[-1]]] = True
        hit[rows] = np.take_along_axis(wanted, chosen, axis=1)
    return _Table(features, hit, np.diff(questions.offsets), int(split.goal.partition("@")[2]))


def _found(table: _Table) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return features and share of the likelihood of each candidate, of the questions with a target among them."""
    found = table.hit.any(axis=1)
    hit = table.hit[found]
    return table.features[:, found], (hit / hit.sum(axis=1, keepdims=True)).astype(np.float32)


def _loss(
    weights: NDArray[np.float64], features: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64]]:
    """Return mean negative log-likelihood of the targets among the candidates, and its gradient."""
    if not len(target):
        return 0.0, np.zeros_like(weights)
    scores = np.tensordot(weights.astype(np.float32), features, 1)
    scores -= scores.max(axis=1, keepdims=True)
    exponentials = np.exp(scores)
    sums = exponentials.sum(axis=1, keepdims=True)
    loss = -np.mean(np.sum(target * (scores - np.log(sums)), axis=1))
    off = ((exponentials / sums - target) / len(target)).ravel()
    gradient = (features.reshape(len(weights), -1) @ off).astype(np.float64)
    return float(loss + _RIDGE * weights @ weights), gradient + 2 * _RIDGE * weights


def _climbed(
    weights: NDArray[np.float64], table: _Table, goal: Callable[[NDArray[np.float32], _Table], float]
) -> NDArray[np.float64]:
    """Return the weights after rounds in which each takes its best factor."""
    scores = np.tensordot(weights.astype(np.float32), table.features, 1)
    best = goal(scores, table)
    for _ in range(_ROUNDS):
        for column in range(len(weights)):
            own = max(float(weights[column]), 0.02 * float(weights.max()))
            for value in [own * factor for factor in _FACTORS]:
                moved = scores + table.features[column] * np.float32(value - weights[column])
                if (reached := goal(moved, table)) > best:
                    best, scores = reached, moved
                    weights[column] = value
    return weights


def _places(scores: NDArray[np.float32], table: _Table) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return question and place from 0 of every target that is a candidate; ties at their middle."""
    question, candidate = np.nonzero(table.hit)
    own = scores[question, candidate][:, None]
    rows = scores[question]
    return question, (rows > own).sum(axis=1) + ((rows == own).sum(axis=1) - 1) // 2


def _reciprocal(scores: NDArray[np.float32], table: _Table) -> float:
    question, place = _places(scores, table)
    first = np.full(len(table.size), np.inf)
    np.minimum.at(first, question, place)
    return float(np.mean(np.where(first < table.cut, 1 / (first + 1), 0.0)))


def _discounted(scores: NDArray[np.float32], table: _Table) -> float:
    question, place = _places(scores, table)
    gain = np.bincount(question, np.where(place < table.cut, 1 / np.log2(place + 2), 0.0), minlength=len(table.size))
    ideal = np.cumsum(1 / np.log2(np.arange(table.cut) + 2))[np.minimum(table.size, table.cut) - 1]
    return float(np.mean(gain / ideal))
