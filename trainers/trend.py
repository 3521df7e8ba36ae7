"""What is popular now, and at this hour, weekday and week of the year."""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainers.base import DAY_MS, Progress, no_progress, rows_of
from trainers.dataset import HOUR_MS, Dataset
from trainers.recommender import Queries, Recommender

_THURSDAY = 3
"""Weekday of 1 January 1970, Monday being 0."""
_YEAR_DAYS = 365.2425


class Trend(Recommender):
    """Rows of each item, halved with every half-life of their age, times how much the season is the item's own.

    The factor of an hour, a weekday or a week is the item's share of rows in it over everybody's, both smoothed by
    `prior` rows that follow everybody. A factor of a season that the data do not cover twice is left out: a first
    December says nothing about Decembers.

    Parameters
    ----------
    half_life_days : float
        Age at which a row counts half; 0 lets none age.
    seasons : tuple[str, ...]
        Of `hour`, `weekday` and `week` (of the year).
    prior : float
        Rows of everybody's habit added to each item's own; positive.
    zone_ms : int
        Local time less UTC, milliseconds.

    Attributes
    ----------
    level_ : NDArray[np.float32] of shape (n_items,)
        Rows, aged as of the newest.
    factors_ : dict[str, NDArray[np.float32]]
        By season, shape (phases, n_items); 1 is no influence.
    now_ms_ : int
        Time of the newest row: when an empty history is asked.

    References
    ----------
    Hyndman and Athanasopoulos 2021, Forecasting: principles and practice, sections 3.4 and 8.1.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Trend().fit(toy()).recommend(question("milk"), k=2)
    >>> names(items)
    [['bread', 'coffee']]
    """

    level_: NDArray[np.float32]
    factors_: dict[str, NDArray[np.float32]]
    now_ms_: int

    def __init__(
        self,
        *,
        half_life_days: float = 14.0,
        seasons: tuple[str, ...] = ("hour", "weekday", "week"),
        prior: float = 20.0,
        zone_ms: int = 0,
    ) -> None:
        self.half_life_days = half_life_days
        self.seasons = seasons
        self.prior = prior
        self.zone_ms = zone_ms

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count rows by item and phase. O(rows + items * phases)."""
        unknown = set(self.seasons) - set(_PHASES)
        if unknown or not self.prior > 0:
            raise ValueError(
                f"seasons {self.seasons}, prior {self.prior}; give hour, weekday or week and a positive prior"
            )
        rows = rows_of(dataset)
        self.now_ms_ = int(rows.time_ms.max())
        age = (self.now_ms_ - rows.time_ms) / DAY_MS
        weight = np.exp2(-age / self.half_life_days) if self.half_life_days else np.ones(len(rows))
        self.level_ = np.bincount(rows.item, weight, dataset.n_items).astype(np.float32)
        covered_days = age.max(initial=0.0)
        self.factors_ = {}
        for season in self.seasons:
            phases, period_days = _PHASES[season]
            if covered_days >= 2 * period_days:
                self.factors_[season] = self._factor(rows, _phase(season, rows.time_ms + self.zone_ms), phases)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return level times factors at the newest moment of each history, or of training where it is empty."""
        level = self.fitted("level_")
        now_ms = np.full(len(queries), self.now_ms_)
        some = np.diff(queries.offsets) > 0
        now_ms[some] = queries.time_ms[queries.offsets[1:][some] - 1]
        scores = np.tile(level, (len(queries), 1))
        for season, factor in self.factors_.items():
            scores *= factor[_phase(season, now_ms + self.zone_ms)]
        return scores

    def _factor(self, rows: Dataset, phase: NDArray[np.int64], phases: int) -> NDArray[np.float32]:
        cells = np.bincount(phase * rows.n_items + rows.item, minlength=phases * rows.n_items)
        counts = cells.reshape(phases, rows.n_items).astype(np.float64)
        everybody = (counts.sum(axis=1) + 1) / (counts.sum() + phases)
        own = (counts + self.prior * everybody[:, None]) / (counts.sum(axis=0) + self.prior)
        return np.asarray(own / everybody[:, None], np.float32)


_PHASES = {"hour": (24, 1.0), "weekday": (7, 7.0), "week": (53, _YEAR_DAYS)}
"""Number of phases of each season, and its period in days."""


def _phase(season: str, local_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the phase of each moment; weeks are counted from 1 January."""
    if season == "hour":
        return local_ms // HOUR_MS % 24
    if season == "weekday":
        return (local_ms // DAY_MS + _THURSDAY) % 7
    days = local_ms.astype("datetime64[ms]").astype("datetime64[D]")
    return np.asarray((days - days.astype("datetime64[Y]")).astype(np.int64) // 7)
