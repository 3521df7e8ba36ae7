"""Which columns of the feature table rows tell too little of, and which an ablation takes away."""

import numpy as np

import core_rs
from trainers.ablation import PARTS, variants
from trainers.columns import CLOCK, columns_of_one_value

NAMES = core_rs.feature_names()
KEPT = {"source", "history", "item", "visitor", "interest", "anchor", "clock"}
"""Groups that no ablation takes away: what is no context, and hours, which no ranker reads."""


def features(**columns: list[float]) -> np.ndarray:
    table = np.zeros((len(next(iter(columns.values()))), len(NAMES)), np.float32)
    for name, values in columns.items():
        table[:, NAMES.index(name)] = values
    return table


def test_columns_of_one_value_in_all_parts_are_found():
    parts = [features(price_ln=[1, 1], known=[0, 0]), features(price_ln=[1], known=[2]), np.zeros((0, len(NAMES)))]
    found = columns_of_one_value(parts)
    assert NAMES.index("price_ln") in found
    assert NAMES.index("known") not in found
    assert columns_of_one_value([]) == set()


def test_every_column_is_in_a_group_that_is_compared_or_kept():
    groups = {name: group for name, group, _, _ in core_rs.feature_table()}
    assert list(groups) == NAMES
    assert set(groups.values()) == {*PARTS, *KEPT}
    assert not KEPT & set(PARTS)
    taken = {name: {NAMES[number] for number in numbers} for name, numbers in variants().items()}
    assert taken["full"] == set()
    for part in PARTS:
        assert taken[f"without {part}"] == {name for name, group in groups.items() if group == part}


def test_columns_of_a_moment_are_in_their_groups():
    taken = {name: {NAMES[number] for number in numbers} for name, numbers in variants().items()}
    assert taken["without promotion"] == {"promoted_by_mailer", "promoted_by_display"}
    assert taken["without price"] == {"price_ln", "discount", "catalog_price_known", "price_to_usual_ln"}
    assert [NAMES[number] for number in CLOCK] == ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
