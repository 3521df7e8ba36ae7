"""Histories as arrays, windows over them and batches of like length."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from trainers.dataset import Dataset
from trainers.recommender import NOBODY, Queries, queries_of
from trainers.sequence.histories import Histories, Windows


def histories(*sizes: int) -> Histories:
    n_entries = sum(sizes)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    items = np.arange(1, n_entries + 1)
    return Histories(offsets, items, np.full(n_entries, 2), np.arange(n_entries) * 1000)


def test_rows_are_padded_on_the_right_and_begin_without_a_gap():
    found = histories(2, 3).inputs(np.array([0, 3]), np.array([2, 5]))
    assert found.items.tolist() == [[1, 2], [4, 5]]
    assert found.gaps.tolist() == [[0, 1000], [0, 1000]]
    short = histories(2, 3).inputs(np.array([0, 4, 5]), np.array([2, 5, 5]))
    assert short.items.tolist() == [[1, 2], [5, 0], [0, 0]]
    assert short.actions.tolist() == [[2, 2], [2, 0], [0, 0]]
    assert short.gaps.tolist() == [[0, 1000], [0, 0], [0, 0]]


def test_histories_without_events_are_padding():
    nobody = Queries(
        np.full(2, NOBODY), np.zeros(3, np.int64), *(np.zeros(0, kind) for kind in ("u4", "u1", "i8")), n_items=3
    )
    found = Histories.of_queries(nobody)
    assert found.inputs(*found.latest(5)).items.tolist() == [[0], [0]]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(1, 7), st.integers(0, 9))
def test_windows_target_every_event_but_the_first_and_the_held_out_once(sizes, length, seed):
    data = histories(*sizes)
    held_out = np.random.default_rng(seed).random(len(sizes)) < 0.5
    windows = Windows.over(data.offsets, length, held_out)
    assert (windows.stops > windows.starts).all()
    assert (windows.stops - windows.starts <= length).all()
    targets = [place + 1 for a, b in zip(windows.starts, windows.stops, strict=True) for place in range(int(a), int(b))]
    assert len(targets) == len(set(targets))
    expected = set(range(int(data.offsets[-1]))) - set(data.offsets[:-1].tolist())
    expected -= set((data.offsets[1:] - 1)[held_out].tolist())
    assert set(targets) == expected


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40), st.integers(8, 64))
def test_batches_hold_every_window_once_and_little_padding(sizes, targets):
    windows = Windows.over(histories(*sizes).offsets, 50, np.zeros(len(sizes), np.bool_))
    batches = windows.batches(targets, np.random.default_rng(0))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(sizes)))
    size = windows.stops - windows.starts
    assert all(len(batch) * size[batch].max() <= max(targets, size[batch].max()) for batch in batches)


def test_events_of_one_moment_come_in_an_order_of_the_seed():
    visitors = [f"v{n // 4}" for n in range(12)]
    lines = {"event_id": visitors, "visitor_id": visitors, "item_id": list("abcdefghaceg")}
    data = Dataset.from_frames(pl.DataFrame(lines).with_columns(event_type=pl.lit("purchase"), time_ms=pl.lit(10**12)))
    first, again, other = (Histories.of_dataset(data, np.random.default_rng(seed)).items for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()
    assert sorted(first[:4].tolist()) == sorted(other[:4].tolist())


def test_gaps_are_of_whole_seconds_as_the_state_keeps_times():
    times = np.array([1_000, 1_999, 2_000, 5_500, 6_400])
    found = Histories(np.array([0, 5]), np.arange(1, 6), np.full(5, 3), times).inputs(np.array([0]), np.array([5]))
    assert found.gaps.tolist() == [[0, 0, 1000, 3000, 1000]]


def test_what_was_shown_is_no_part_of_a_history_and_what_was_refused_is_no_target():
    kinds = ["impression", "view", "impression", "dislike", "return", "purchase", "impression", "remove_from_cart"]
    lines = {"visitor_id": ["v"] * 7 + ["w"], "item_id": list("abcdefgh"), "time_ms": range(10**12, 10**12 + 8)}
    data = Dataset.from_frames(
        pl.DataFrame(lines).with_columns(event_id=pl.Series(list("01234567")), event_type=pl.Series(kinds))
    )
    learnt = Histories.of_dataset(data, np.random.default_rng(0))
    asked = Histories.of_queries(queries_of(data, np.arange(2, dtype=np.uint32)))
    for found in (learnt, asked):
        assert found.offsets.tolist() == [0, 4, 5]
        assert [data.items[item - 1] for item in found.items] == list("bdefh")
        assert found.is_target.tolist() == [True, False, False, True, False]
    windows = Windows.over(learnt.offsets, 2, np.zeros(2, np.bool_))
    assert [windows.starts.tolist(), windows.stops.tolist()] == [[1, 0], [3, 1]]
    kept = windows.with_targets(learnt.is_target)
    assert [kept.starts.tolist(), kept.stops.tolist()] == [[1], [3]]
    assert learnt.targets(kept.starts, kept.stops).tolist() == [[0, data.items.index("f") + 1]]
