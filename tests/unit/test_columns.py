"""Which columns of the feature table rows tell too little of."""

import numpy as np

import core_rs
from trainers.columns import columns_of_one_value

NAMES = core_rs.feature_names()


def features(**columns: list[float]) -> np.ndarray:
    table = np.zeros((len(next(iter(columns.values()))), len(NAMES)), np.float32)
    for name, values in columns.items():
        table[:, NAMES.index(name)] = values
    return table


def test_columns_of_one_value_in_all_parts_are_found():
    parts = [features(price=[1, 1], popular=[0, 0]), features(price=[1], popular=[2]), np.zeros((0, len(NAMES)))]
    found = columns_of_one_value(parts)
    assert NAMES.index("price") in found
    assert NAMES.index("popular") not in found
    assert columns_of_one_value([]) == set()
