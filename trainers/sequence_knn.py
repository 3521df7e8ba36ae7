"""What the visitors or sessions nearest to a history hold."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import DAY_MS, Progress, no_progress, offsets_of, rows_of
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender


class SequenceKnn(Recommender):
    """V-SKNN: sum over the nearest histories of their likeness, by the items in common; user-kNN, or session-kNN.

    Likeness is a cosine of items, those of the query weighed by recency, rare ones more, and older histories less.
    An item counts more the nearer it lies, in a neighbour, to the common item that is last in the query.

    Parameters
    ----------
    k : int
        Nearest histories that vote.
    power : float
        Exponent of likeness: greater lets the nearest decide.
    normalise : float
        Exponent of a history's length that divides its likeness; .5 is the cosine.
    idf : float
        Exponent of ln(1 + histories / histories with the item), the weight of an item in common.
    target_idf : float
        The same exponent for the item that is recommended; below zero favours popular items.
    decay : float
        Weight of a step of the query relative to the next.
    window : int
        Steps of the query that count, newest first.
    half_life_days : float
        Age at which a history counts half; 0 lets none age.
    nearby : float
        Factor for each step, in the neighbour, from the common item; 1 ignores places.
    behind : float
        Factor for items before the common item, 0 to 1.

    Attributes
    ----------
    offsets_ : NDArray[np.int64] of shape (n_visitors + 1,)
        The history of visitor `i` is the entries `offsets_[i]` to `offsets_[i + 1]`.
    items_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, in order of time, each once a history.
    weights_ : NDArray[np.float32] of shape (n_visitors,)
        Factor of each history's likeness, by its age and length.
    idf_ : NDArray[np.float32] of shape (n_items,)
        ln(1 + histories / histories with the item).

    References
    ----------
    Jannach and Ludewig 2017, When recurrent neural networks meet the neighborhood for session-based recommendation.
    Garg, Gupta, Malhotra, Vig and Shroff 2019, Sequence and time aware neighborhood for session-based
    recommendations, section 3.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = SequenceKnn().fit(toy()).recommend(question("coffee"), k=3)
    >>> names(items)
    [['coffee', 'filters', 'milk']]
    """

    offsets_: NDArray[np.int64]
    items_: NDArray[np.uint32]
    weights_: NDArray[np.float32]
    idf_: NDArray[np.float32]

    def __init__(  # noqa: PLR0913 - keyword hyper-parameters
        self,
        *,
        k: int = 100,
        power: float = 1.0,
        normalise: float = 0.5,
        idf: float = 0.0,
        target_idf: float = 0.0,
        decay: float = 0.8,
        window: int = 50,
        half_life_days: float = 0.0,
        nearby: float = 1.0,
        behind: float = 1.0,
    ) -> None:
        self.k = k
        self.power = power
        self.normalise = normalise
        self.idf = idf
        self.target_idf = target_idf
        self.decay = decay
        self.window = window
        self.half_life_days = half_life_days
        self.nearby = nearby
        self.behind = behind

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Keep the histories, each item at its last place. O(rows log rows)."""
        rows = rows_of(dataset)
        last = np.lexsort((np.arange(len(rows)), rows.item, rows.visitor))
        same = (np.diff(rows.visitor[last]) == 0) & (np.diff(rows.item[last]) == 0)
        kept = rows.where(_mask(len(rows), last[np.append(~same, True)]))
        sizes = np.bincount(kept.visitor, minlength=dataset.n_visitors)
        self.offsets_ = offsets_of(sizes)
        self.items_ = kept.item
        newest = np.full(dataset.n_visitors, rows.time_ms.min())
        np.maximum.at(newest, rows.visitor, rows.time_ms)
        age = (rows.time_ms.max() - newest) / DAY_MS
        fresh = np.exp2(-age / self.half_life_days) if self.half_life_days else np.ones(dataset.n_visitors)
        self.weights_ = (fresh / np.maximum(sizes, 1) ** self.normalise).astype(np.float32)
        holders = np.maximum(np.bincount(kept.item, minlength=dataset.n_items), 1)
        self.idf_ = np.log(1 + dataset.n_visitors / holders).astype(np.float32)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the votes of the nearest histories, each visitor's own history left out."""
        table = (self.fitted("offsets_"), self.items_, self.weights_)
        weight = queries.recency(self.decay, self.window) * self.idf_[queries.item] ** self.idf
        owner = queries.owner
        last = np.lexsort((np.arange(len(owner)), queries.item, owner))
        same = (np.diff(owner[last]) == 0) & (np.diff(queries.item[last]) == 0)
        chosen = np.sort(last[np.append(~same, True)]) if len(last) else last
        offsets = np.searchsorted(owner[chosen], np.arange(len(queries) + 1)).astype(np.int64)
        out = np.zeros((len(queries), queries.n_items), np.float32)
        core_rs.score_by_histories(
            table,
            (queries.visitor, offsets, queries.item[chosen], weight[chosen].astype(np.float32)),
            out,
            neighbours=self.k,
            power=self.power,
            nearby=self.nearby,
            behind=self.behind,
        )
        return np.asarray(out * self.idf_**self.target_idf, np.float32) if self.target_idf else out


def _mask(length: int, places: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(length, np.bool_)
    mask[places] = True
    return mask
