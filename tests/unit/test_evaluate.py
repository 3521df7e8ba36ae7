"""Measures against cases worked out by hand, and what must hold for all."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.dataset import Dataset
from trainers.evaluate import measure, ranks_of_lists, ranks_of_scores
from trainers.protocols import Task

DAY = 86_400_000


def shop(bought: dict[str, list[str]], items: list[str]) -> Dataset:
    lines = [(visitor, item) for visitor, row in bought.items() for item in row]
    return Dataset.from_frames(
        pl.DataFrame(
            {
                "event_id": [f"e{visitor}" for visitor, _ in lines],
                "visitor_id": [visitor for visitor, _ in lines],
                "item_id": [item for _, item in lines],
                "event_type": ["purchase"] * len(lines),
                "time_ms": [DAY] * len(lines),
            }
        ),
        pl.DataFrame({"item_id": items}),
    )


def task(targets: list[list[int]], n_items: int = 30) -> Task:
    items = [f"i{number:02}" for number in range(n_items)]
    train = shop({f"v{number}": ["i00"] for number in range(len(targets))}, items)
    offsets = np.cumsum([0, *map(len, targets)]).astype(np.int64)
    flat = np.array([item for row in targets for item in row], np.uint32)
    return Task(train, np.ones(n_items, np.bool_), np.arange(len(targets), dtype=np.uint32), offsets, flat)


def test_measures_of_a_case_worked_out_by_hand():
    asked = task([[1, 2, 3], [4]])
    found = measure(asked, np.array([0.0, 4.0, 12.0, 25.0]))
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert found.values["recall_at_10"].tolist() == pytest.approx([2 / 3, 0])
    assert found.values["recall_at_20"].tolist() == pytest.approx([1, 0])
    assert found.values["hit_rate_at_10"].tolist() == [1, 0]
    assert found.values["ndcg_at_10"].tolist() == pytest.approx([(1 + 1 / math.log2(6)) / ideal, 0])
    assert found.means()["recall_at_10"] == pytest.approx(1 / 3)
    assert found.recall[[0, 3, 4, 12, 25]].tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 2, 1])


def test_the_ideal_is_ten_hits_where_there_are_more_targets():
    asked = task([list(range(15))])
    assert measure(asked, np.arange(15.0)).values["ndcg_at_10"].tolist() == pytest.approx([1.0])
    assert measure(asked, np.arange(15.0)).values["recall_at_10"].tolist() == pytest.approx([10 / 15])


def test_visitors_without_a_target_are_left_out_and_counted():
    asked = task([[1], [], [2]])
    found = measure(asked, np.array([0.0, np.inf]))
    assert (found.visitor_count, found.left_out) == (2, 1)
    assert found.means()["recall_at_10"] == 0.5


def ranks_of(scores, targets):
    return ranks_of_scores([task([targets], len(scores))], lambda _: np.array([scores], np.float32))[0].tolist()


def test_ties_share_the_middle_of_their_places():
    assert ranks_of([3, 1, 1, 1, 0, -np.inf], [0, 1, 3, 4, 5]) == [0, 2, 2, 4, np.inf]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.data())
def test_mid_tie_ranks_are_the_mean_of_all_orders_of_the_ties(scores, data):
    target = data.draw(st.integers(0, len(scores) - 1))
    above = sum(score > scores[target] for score in scores)
    below = sum(score >= scores[target] for score in scores) - 1
    assert ranks_of(scores, [target]) == [(above + below) / 2]


def test_items_bought_before_do_not_compete_when_exploring():
    asked = task([[0, 2]])
    explore = asked.explore_only()
    assert explore.target.tolist() == [2]
    falling = -np.arange(30, dtype=np.float32)
    ranks = ranks_of_scores([asked, explore], lambda visitors: np.tile(falling, (len(visitors), 1)))
    assert [of_task.tolist() for of_task in ranks] == [[0, 2], [1]]


def test_items_that_are_not_asked_for_are_passed_over():
    asked = task([[3, 4]])
    asked.kept[1] = False
    ranks = ranks_of_lists(asked, [["i01", "i03", "other", "i07"]])
    assert ranks.tolist() == [0, np.inf]


def test_lists_and_scores_agree():
    asked = task([[5, 9, 11]])
    scores = np.random.default_rng(3).normal(size=30).astype(np.float32)
    shown = [f"i{number:02}" for number in np.argsort(-scores)]
    (by_scores,) = ranks_of_scores([asked], lambda visitors: np.tile(scores, (len(visitors), 1)))
    assert ranks_of_lists(asked, [shown]).tolist() == by_scores.tolist()


@given(
    st.lists(st.integers(1, 40).map(lambda place: 2 * place), min_size=4, max_size=4, unique=True), st.integers(0, 3)
)
def test_a_better_rank_never_lowers_a_measure(ranks, which):
    asked = task([[1, 2], [3, 4]])
    better = [rank - 3 * (number == which) for number, rank in enumerate(ranks)]
    before, after = (measure(asked, np.maximum(values, 0.0)).means() for values in (ranks, better))
    assert all(0 <= before[name] <= after[name] <= 1 for name in before)


def test_intervals_hold_the_mean_and_narrow_with_visitors():
    widths = []
    for count in (20, 2000):
        hits = np.random.default_rng(0).random(count) < 0.4
        asked = task([[1]] * count)
        value, low, high = measure(asked, np.where(hits, 0.0, np.inf)).metrics()["recall_at_10"]
        assert low <= value <= high
        assert value == hits.mean()
        widths.append(high - low)
    assert widths[1] < widths[0] / 3
