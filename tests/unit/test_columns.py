"""Which columns of the feature table rows tell too little of."""

import numpy as np

import core_rs
from trainers.columns import CLOCK, clock_of_few_moments, columns_of_one_value

NAMES = core_rs.feature_names()


def features(**columns: list[float]) -> np.ndarray:
    table = np.zeros((len(next(iter(columns.values()))), len(NAMES)), np.float32)
    for name, values in columns.items():
        table[:, NAMES.index(name)] = values
    return table


def asked_at(hours: np.ndarray) -> np.ndarray:
    day, week = hours % 24 / 24 * 2 * np.pi, hours // 24 % 7 / 7 * 2 * np.pi
    turns = {"hour_sin": np.sin(day), "hour_cos": np.cos(day), "weekday_sin": np.sin(week), "weekday_cos": np.cos(week)}
    return features(**turns)


def test_the_clock_of_a_few_cuts_tells_nothing_whatever_hours_they_are_of():
    cuts = np.arange(16).repeat(100)
    for hours in (0 * cuts, cuts % 2, 168.0 * cuts, 128.3 * cuts):
        assert clock_of_few_moments(asked_at(hours)) == tuple(CLOCK)
    assert clock_of_few_moments(asked_at(np.zeros(0))) == tuple(CLOCK)


def test_the_clock_of_many_moments_tells_something_and_comes_back_every_week():
    assert clock_of_few_moments(asked_at(np.arange(168.0).repeat(5))) == ()
    assert clock_of_few_moments(asked_at(np.arange(0, 24 * 7 * 300, 24.0))) == tuple(CLOCK)


def test_columns_of_one_value_in_all_parts_are_found():
    parts = [features(price=[1, 1], popular=[0, 0]), features(price=[1], popular=[2]), np.zeros((0, len(NAMES)))]
    found = columns_of_one_value(parts)
    assert NAMES.index("price") in found
    assert NAMES.index("popular") not in found
    assert columns_of_one_value([]) == set()
