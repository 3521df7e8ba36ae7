"""The question of the next basket: what is asked, of whom, and that nothing of the answer leaks."""

from dataclasses import replace
from itertools import count

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.dataset import Dataset
from trainers.protocols import NextBasketQuestion

DAY = 86_400_000
SPLIT = 100 * DAY
SERVICES = NextBasketQuestion(
    without_categories=("FUEL", "MISCELLANEOUS"), without_subcategories=("COUPON/MISC ITEMS",), min_items=2
)


def dataset(baskets: list[tuple[str, int, list[str]]], paths: dict[str, list[str]] | None = None) -> Dataset:
    number = count()
    lines = [(f"e{next(number):03}", *basket) for basket in baskets]
    rows = [(event, visitor, item, day * DAY) for event, visitor, day, items in lines for item in items]
    events = pl.DataFrame(rows, schema=["event_id", "visitor_id", "item_id", "time_ms"], orient="row")
    items = sorted({row[2] for row in rows})
    catalogue = pl.DataFrame(
        {"item_id": items, "category_path": [(paths or {}).get(item, ["GROCERY", "FOOD"]) for item in items]}
    )
    return Dataset.from_frames(events.with_columns(event_type=pl.lit("purchase")), catalogue)


def question(**settings_: int) -> NextBasketQuestion:
    return NextBasketQuestion(**{"min_items": 2, **settings_})


def asked(task) -> dict[str, set[str]]:
    items = task.train.items
    return {
        task.train.visitors[visitor]: {items[item] for item in task.target[start:end]}
        for visitor, start, end in zip(task.visitor, task.offsets[:-1], task.offsets[1:], strict=True)
    }


def test_the_first_large_enough_basket_from_the_split_on_is_the_target():
    data = dataset(
        [
            ("a", 1, ["x", "y", "z"]),
            ("a", 100, ["x"]),
            ("a", 101, ["y", "z"]),
            ("a", 102, ["x", "y", "z"]),
            ("b", 1, ["x"]),
            ("b", 103, ["x"]),
        ]
    )
    task = question().task(data, SPLIT)
    assert asked(task) == {"a": {"y", "z"}}
    assert len(task.train) == 4
    assert asked(task.explore_only()) == {"a": set()}


def test_services_and_rare_items_are_neither_asked_for_nor_learnt():
    data = dataset(
        [
            ("a", 1, ["bread", "gas", "bag", "rare"]),
            ("b", 2, ["bread", "gas", "bag", "milk"]),
            ("a", 3, ["milk"]),
            ("a", 101, ["bread", "milk", "gas", "bag", "rare"]),
        ],
        {"gas": ["FUEL", "GAS"], "bag": ["GROCERY", "COUPON/MISC ITEMS"]},
    )
    task = replace(SERVICES, min_buyers=2).task(data, SPLIT)
    assert asked(task) == {"a": {"bread", "milk"}}
    assert {data.items[item] for item in task.train.item} == {"bread", "milk"}


def test_of_any_shop_all_who_came_back_are_asked_about_all_it_sells():
    data = dataset(
        [("a", 1, ["gas"]), ("a", 101, ["gas"]), ("b", 2, ["x"]), ("c", 102, ["x"])], {"gas": ["FUEL", "GAS"]}
    )
    assert asked(NextBasketQuestion().task(data, SPLIT)) == {"a": {"gas"}}
    assert not len(SERVICES.task(data, SPLIT).visitor)


def test_a_category_named_like_a_service_department_is_no_service():
    data = dataset([("a", 1, ["gift", "x"]), ("a", 101, ["gift", "x"])], {"gift": ["FLORAL", "MISCELLANEOUS"]})
    task = SERVICES.task(data, SPLIT)
    assert asked(task) == {"a": {"gift", "x"}}


def test_newcomers_are_not_asked_about():
    data = dataset([("a", 1, ["x", "y"]), ("a", 2, ["x"]), ("a", 101, ["x", "y"]), ("b", 101, ["x", "y"])])
    assert set(asked(question(min_baskets=2).task(data, SPLIT))) == {"a"}


def test_baskets_after_the_end_are_no_target():
    data = dataset([("a", 1, ["x", "y"]), ("a", 130, ["x", "y"])])
    assert asked(question().task(data, SPLIT)) == {"a": {"x", "y"}}
    assert asked(question().task(data, SPLIT, until_ms=120 * DAY)) == {}


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(90, 110), st.sets(st.sampled_from("uvwxyz"), min_size=1)))
)
def test_what_happens_from_the_split_on_changes_nothing_that_models_read(baskets):
    past = [(visitor, day, sorted(items)) for visitor, day, items in baskets if day < 100]
    everything = [("a", 1, ["u", "v", "w", "x", "y", "z"]), ("b", 1, ["u"]), ("c", 1, ["u"]), *past]
    future = [(visitor, day, sorted(items)) for visitor, day, items in baskets if day >= 100]
    with_future = question().task(dataset([*everything, *future]), SPLIT)
    without = question().task(dataset(everything), SPLIT)
    assert (with_future.train.time_ms < SPLIT).all()
    for column in ("visitor", "item", "time_ms", "quantity"):
        np.testing.assert_array_equal(getattr(with_future.train, column), getattr(without.train, column))
    np.testing.assert_array_equal(with_future.kept, without.kept)


def test_slices_keep_the_tables():
    data = dataset([("a", 1, ["x"]), ("b", 101, ["y"])])
    for part in (data.before(SPLIT), data.since(SPLIT), data.of("purchase"), data.of("view")):
        assert part.items is data.items
        assert part.visitors is data.visitors
    assert len(data.before(SPLIT)) + len(data.since(SPLIT)) == len(data)
    with pytest.raises(KeyError, match="buy"):
        data.of("buy")
