"""Columns of the feature table that rows tell too little of to learn from."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import core_rs

CLOCK = tuple(number for number, (_, group, _, _) in enumerate(core_rs.feature_table()) if group == "clock")
"""Columns that the wall clock of the shop gives: one value for all that is asked at a moment.

Training asks at a few moments, a week apart, too few to learn an hour or a weekday from. Deviation does not show it:
midnights of summer and winter time are two hours near each other, and a ranker that took the difference for a meaning
would be far off at noon.
"""


def columns_of_one_value(parts: Sequence[NDArray[np.float32]]) -> set[int]:
    """Return the columns that hold one value in all rows of `parts`, each of shape (n, d)."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return set()
    low = np.min([part.min(axis=0) for part in filled], axis=0)
    high = np.max([part.max(axis=0) for part in filled], axis=0)
    return set(np.flatnonzero(low == high).tolist())
