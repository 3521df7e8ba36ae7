"""Weights of a blend, chosen on validation alone: first by likelihood, then by the measure itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from trainers.blend import FORMS, forms
from trainers.offline.questions import Questions, Trial
from trainers.recommender import Recommender

_CANDIDATES = 250
_BATCH = 256
_RIDGE = 1e-3
_FACTORS = (0.0, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0)
_ROUNDS = 2


@dataclass(frozen=True)
class _Table:
    """Members' scores of the best candidates of every question.

    Attributes
    ----------
    features : NDArray[np.float32] of shape (n, candidates, members * FORMS)
    hit : NDArray[np.bool_] of shape (n, candidates)
    size : NDArray[np.int64] of shape (n,)
        Targets of each question, candidates or not.
    """

    features: NDArray[np.float32]
    hit: NDArray[np.bool_]
    size: NDArray[np.int64]


def best_weights(members: Sequence[Recommender], trial: Trial, questions: Questions) -> tuple[float, ...]:
    """Return the weights, at least 0, of fitted members for these validation questions.

    Candidates are the items that any member scores best. Weights maximise the likelihood of the targets under a softmax
    over candidates; then each in turn takes the factor that lifts the trial's measure.
    """
    table = _table(members, trial, questions)
    start = np.full(table.features.shape[2], 1.0)
    fitted = minimize(
        _loss, start, (table,), jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(start), options={"maxiter": 60}
    )
    goal = _reciprocal if trial.goal.startswith("M") else _discounted
    weights = _climbed(fitted.x, table, goal)
    return tuple(float(weight) for weight in weights / max(weights.max(), 1e-12))


def _table(members: Sequence[Recommender], trial: Trial, questions: Questions) -> _Table:
    width = min(_CANDIDATES, questions.queries.n_items)
    features = np.empty((len(questions), width, FORMS * len(members)), np.float32)
    hit = np.zeros((len(questions), width), np.bool_)
    for start in range(0, len(questions), _BATCH):
        queries = questions.queries.batch(start, start + _BATCH)
        full = [form for member in members for form in forms(member.score(queries))]
        reach = np.maximum.reduce(full[1::FORMS])
        if trial.filter_seen:
            reach[queries.owner, queries.item] = -1
        chosen = np.argpartition(reach, -width, axis=1)[:, -width:]
        rows = slice(start, start + len(queries))
        for column, form in enumerate(full):
            features[rows, :, column] = np.take_along_axis(form, chosen, axis=1)
        wanted = np.zeros(reach.shape, np.bool_)
        offsets = questions.offsets[start : start + len(queries) + 1]
        wanted[np.repeat(np.arange(len(queries)), np.diff(offsets)), questions.target[offsets[0] : offsets[-1]]] = True
        hit[rows] = np.take_along_axis(wanted, chosen, axis=1)
    return _Table(features, hit, np.diff(questions.offsets))


def _loss(weights: NDArray[np.float64], table: _Table) -> tuple[float, NDArray[np.float64]]:
    """Return mean negative log-likelihood of the targets among the candidates, and its gradient."""
    found = table.hit.any(axis=1)
    features, hit = table.features[found], table.hit[found]
    if not len(hit):
        return 0.0, np.zeros_like(weights)
    scores = features @ weights.astype(np.float32)
    scores -= scores.max(axis=1, keepdims=True)
    odds = np.exp(scores)
    share = odds / odds.sum(axis=1, keepdims=True)
    target = hit / hit.sum(axis=1, keepdims=True)
    loss = -np.mean(np.sum(target * np.log(np.maximum(share, 1e-12)), axis=1))
    gradient = np.einsum("nc,ncf->f", share - target, features) / len(hit)
    return float(loss + _RIDGE * weights @ weights), gradient + 2 * _RIDGE * weights


def _climbed(
    weights: NDArray[np.float64], table: _Table, goal: Callable[[NDArray[np.float32], _Table], float]
) -> NDArray[np.float64]:
    """Return the weights after rounds in which each takes its best factor."""
    scores = table.features @ weights.astype(np.float32)
    best = goal(scores, table)
    for _ in range(_ROUNDS):
        for column in range(len(weights)):
            own = max(float(weights[column]), 0.02 * float(weights.max()))
            for value in [own * factor for factor in _FACTORS]:
                moved = scores + table.features[:, :, column] * np.float32(value - weights[column])
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
    return float(np.mean(np.where(first < 20, 1 / (first + 1), 0.0)))  # noqa: PLR2004 - the goal M@20


def _discounted(scores: NDArray[np.float32], table: _Table) -> float:
    k = 10 if np.all(table.size == 1) else 20
    question, place = _places(scores, table)
    gain = np.bincount(question, np.where(place < k, 1 / np.log2(place + 2), 0.0), minlength=len(table.size))
    ideal = np.cumsum(1 / np.log2(np.arange(k) + 2))[np.minimum(table.size, k) - 1]
    return float(np.mean(gain / ideal))
