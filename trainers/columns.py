"""Columns of the feature table that rows tell too little of to learn from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import core_rs

CLOCK = [core_rs.feature_names().index(name) for name in ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")]
"""Columns that the wall clock of the shop gives: one value for all that is asked at a moment."""

_LEAST_MOMENTS = 100


def clock_of_few_moments(features: NDArray[np.float32]) -> tuple[int, ...]:
    """Return the columns of the clock where rows are of too few moments to learn an hour or a weekday from; else none.

    Deviation does not show it: rows of two midnights, of summer and winter time, have two hours near each other, and a
    ranker that took the difference for a meaning would be far off at noon.

    Parameters
    ----------
    features : shape (n, d); rows of one moment after the other
    """
    clock = features[:, CLOCK]
    starts = np.flatnonzero((clock[1:] != clock[:-1]).any(axis=1)) + 1
    moments = np.unique(clock[[0, *starts]], axis=0) if len(clock) else clock
    return tuple(CLOCK) if len(moments) < _LEAST_MOMENTS else ()


def columns_of_one_value(parts: Sequence[NDArray[np.float32]]) -> set[int]:
    """Return the columns that hold one value in all rows of `parts`, each of shape (n, d)."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return set()
    low = np.min([part.min(axis=0) for part in filled], axis=0)
    high = np.max([part.max(axis=0) for part in filled], axis=0)
    return set(np.flatnonzero(low == high).tolist())
