"""Models that every other one has to beat, most of them trivial. All score by the purchases before the split."""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import core_rs
from trainers import chosen
from trainers.als import Als
from trainers.base import DAY_MS, once_a_basket
from trainers.dataset import Dataset
from trainers.ease import Ease
from trainers.evaluate import Scorer
from trainers.protocols import pair
from trainers.recommender import Recommender, queries_of, unit_rows
from trainers.sequential_rules import SequentialRules
from trainers.tifu_knn import TifuKnn


def popular(train: Dataset, now_ms: int, days: int | None = None) -> Scorer:
    """Return a scorer by the number of baskets, in the last `days` or ever."""
    counts = _popularity(train if days is None else train.since(now_ms - days * DAY_MS))
    return lambda visitors: np.broadcast_to(counts, (len(visitors), len(counts)))


def personal_top(train: Dataset) -> Scorer:
    """Return a scorer by the visitor's own number of baskets with the item."""
    counts = _counts(train)
    return lambda visitors: counts[visitors].toarray()


def personal_then_popular(train: Dataset) -> Scorer:
    """Return a scorer by the visitor's own baskets first, then by everybody's."""
    counts, everybody = _counts(train), _popularity(train)
    share = everybody / (everybody.max(initial=0) + 1)
    return lambda visitors: counts[visitors].toarray() + share


def item_knn(train: Dataset, neighbours: int = 50) -> Scorer:
    """Return a scorer by an item's cosine with those of its nearest items that the visitor bought, summed.

    Purchases weigh by the logarithm of their count of baskets. Without a limit to the nearest, what is popular wins by
    its many faint likenesses.
    """
    bought = _counts(train).log1p()
    lines = bought.tocoo()
    of, by = lines.row.astype(np.uint32), lines.col.astype(np.uint32)
    offsets, nearest, cosine = core_rs.item_neighbours(
        of, by, lines.shape, measure="cosine", k=neighbours, shrink=0.0, weights=lines.data
    )
    from_nearest = sparse.csr_matrix(
        (cosine, nearest.astype(np.int64), offsets.astype(np.int64)), (train.n_items,) * 2
    ).T

    return lambda visitors: np.asarray((bought[visitors] @ from_nearest).toarray(), dtype=np.float32)


def user_knn(train: Dataset, neighbours: int = 50) -> Scorer:
    """Return a scorer by the summed cosine of the nearest visitors that bought the item, by logarithms of counts."""
    bought = _counts(train).log1p()
    rows = unit_rows(bought)

    def score(visitors: NDArray[np.uint32]) -> NDArray[np.float32]:
        similar = (rows[visitors] @ rows.T).toarray()
        similar[np.arange(len(visitors)), visitors] = 0
        if similar.shape[1] > neighbours:
            weakest = np.partition(similar, -neighbours, axis=1)[:, -neighbours][:, None]
            similar[similar < weakest] = 0
        return np.asarray((sparse.csr_matrix(similar) @ bought).toarray(), dtype=np.float32)

    return score


def learnt(model: Recommender, train: Dataset) -> Scorer:
    """Return a scorer by what `model` learns, of each visitor's whole history."""
    fitted = model.fit(train)
    return lambda visitors: fitted.score(queries_of(train, visitors))


class Baselines(StrEnum):
    """Baselines by name: those that cost next to nothing, or all."""

    TRIVIAL = "trivial"
    ALL = "all"


def baselines_of(kind: Baselines, train: Dataset, now_ms: int) -> dict[str, Callable[[], Scorer]]:
    """Return how to make every baseline of a kind, by the name it has in tables."""
    trivial: dict[str, Callable[[], Scorer]] = {
        "popular": lambda: popular(train, now_ms),
        "popular 28 d": lambda: popular(train, now_ms, 28),
        "popular 7 d": lambda: popular(train, now_ms, 7),
        "personal top": lambda: personal_top(train),
        "personal + popular top": lambda: personal_then_popular(train),
        "item-kNN (log counts)": lambda: item_knn(train),
        "user-kNN (log counts)": lambda: user_knn(train),
    }
    if kind is Baselines.TRIVIAL:
        return trivial
    return trivial | {
        "TIFU-KNN": lambda: learnt(TifuKnn(**chosen.TIFU_KNN_BASELINE), train),
        "sequential-rules": lambda: learnt(SequentialRules(**chosen.SEQUENTIAL_RULES, actions=()), train),
        "iALS": lambda: learnt(Als(**chosen.IALS), train),
        "EASE": lambda: learnt(Ease(), train),
    }


def _counts(train: Dataset) -> sparse.csr_matrix:
    numbers, baskets = np.unique(pair(train, (lines := once_a_basket(train)).visitor, lines.item), return_counts=True)
    place = (numbers // train.n_items, numbers % train.n_items)
    return sparse.csr_matrix((baskets.astype(np.float32), place), shape=(train.n_visitors, train.n_items))


def _popularity(train: Dataset) -> NDArray[np.float32]:
    return np.bincount(once_a_basket(train).item, minlength=train.n_items).astype(np.float32)
