"""What rankers learn from: candidates of a moment, and where visitors were shown them afterwards."""

import numpy as np
import polars as pl

import core_rs
from server.defaults import PLACEMENTS
from trainers.bundle import FittedRanking, ManifestFacts, write_bundle
from trainers.dataset import Dataset
from trainers.examples import Collector, outcomes
from trainers.network_ranker import NetworkRanker
from trainers.ranker import Rows
from trainers.shop import Shop

HOUR = 3_600_000
NOW = 1_700_000_000_000
SHOWN = [
    # visitor, item, event type, hours after the moment, position
    ("a", "tea", "impression", -1, 1),
    ("a", "tea", "impression", 1, 7),
    ("a", "tea", "impression", 2, 3),
    ("a", "milk", "click", 2, 2),
    ("a", "milk", "purchase", 2, 0),
    ("a", "tea", "purchase", 2, 0),
    ("a", "tea", "impression", 2.2, 1),
    ("a", "milk", "impression", 30, 1),
    ("a", "bread", "impression", 90, 1),
    ("b", "milk", "impression", 1, 0),
    ("b", "milk", "impression", 1, 4),
]


def events(shown: list[tuple[str, str, str, float, int]] = SHOWN) -> pl.DataFrame:
    past = [(visitor, item, "purchase", -48, 0) for visitor in "ab" for item in ("tea", "milk", "bread")]
    rows = [*past, *shown]
    return pl.DataFrame(
        {
            "event_id": [f"e{number:02}" for number in range(len(rows))],
            "line": [0] * len(rows),
            "visitor_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "event_type": [row[2] for row in rows],
            "time_ms": [NOW + int(row[3] * HOUR) for row in rows],
            "position": [row[4] for row in rows],
            "quantity": [1] * len(rows),
            "price": [1.0] * len(rows),
        }
    )


def named(dataset: Dataset, items: np.ndarray) -> list[str]:
    return [dataset.items[item] for item in items.tolist()]


def test_impressions_up_to_the_purchase_tell_the_best_position_and_clicks_tell_none():
    dataset = Dataset.from_frames(events())
    (found,) = outcomes(dataset, ("purchase",), NOW, NOW + 48 * HOUR)
    assert dataset.visitors[found.visitor] == "a"
    assert dict(zip(named(dataset, found.shown), found.positions.tolist(), strict=True)) == {"tea": 3}


def test_what_is_shown_because_it_was_bought_does_not_speak_for_the_purchase():
    bought_first = [("a", "tea", "purchase", 24, 0), ("a", "tea", "impression", 72, 1)]
    (found,) = outcomes(Dataset.from_frames(events(bought_first)), ("purchase",), NOW, NOW + 96 * HOUR)
    assert not len(found.shown)


def test_what_is_shown_again_after_it_was_viewed_does_not_speak_for_the_view():
    shown = [
        ("a", "tea", "impression", 1, 5),
        ("a", "tea", "view", 1.1, 0),
        ("a", "tea", "impression", 1.2, 1),
        ("a", "milk", "impression", 1.2, 2),
        ("a", "bread", "view", 1.3, 0),
        ("a", "milk", "impression", 1.4, 1),
    ]
    dataset = Dataset.from_frames(events(shown))
    (found,) = outcomes(dataset, ("view",), NOW, NOW + 48 * HOUR)
    assert dict(zip(named(dataset, found.shown), found.positions.tolist(), strict=True)) == {"tea": 5, "milk": 2}


def test_each_visit_answers_for_the_actions_that_were_taken_on_it_first():
    shown = [
        ("a", "tea", "view", 1, 0),
        ("a", "milk", "impression", 24, 2),
        ("a", "milk", "view", 24, 0),
        ("a", "milk", "purchase", 24.2, 0),
        ("a", "milk", "impression", 24.3, 1),
    ]
    dataset = Dataset.from_frames(events(shown))
    viewed, bought = outcomes(dataset, ("purchase", "view", "return"), NOW, NOW + 48 * HOUR)
    assert [viewed.asked.tolist(), bought.asked.tolist()] == [[False, True, True], [True, False, False]]
    assert [named(dataset, items) for items in viewed.followed] == [[], ["tea"], []]
    assert [named(dataset, items) for items in bought.followed] == [["milk"], [], []]
    assert (len(viewed.shown), bought.positions.tolist()) == (0, [2])


def test_candidates_carry_where_they_were_shown(tmp_path):
    frame = events()
    dataset = Dataset.from_frames(frame)
    shop = Shop(frame, pl.DataFrame({"item_id": ["tea", "milk", "bread"]}), list(PLACEMENTS), "UTC")
    shop.advance(NOW)
    shop.install(write_bundle(tmp_path, ManifestFacts("one", 1, ("purchase",)), dataset, [], blank()))
    rows = Collector(dataset, ("home_for_you",), seed=0).collect(shop, ("purchase",), NOW + 48 * HOUR)
    assert sorted(rows.positions[rows.labels[:, 0]]) == [0, 3]
    assert Rows.concatenate([rows, rows]).positions.tolist() == [*rows.positions, *rows.positions]


def test_candidates_carry_the_device_and_the_campaign_of_the_visit_that_they_answer(tmp_path):
    shown = [("a", "tea", "view", 1, 0), ("a", "milk", "purchase", 24, 0), ("b", "tea", "purchase", 1, 0)]
    frame = events(shown).with_columns(
        device=pl.Series(["desktop"] * 6 + ["phone", "email", ""]),
        campaign_id=pl.Series([""] * 6 + ["spring", None, ""]),
    )
    dataset = Dataset.from_frames(frame)
    assert dataset.campaigns == ["", "spring"]
    shop = Shop(frame, pl.DataFrame({"item_id": ["tea", "milk", "bread"]}), list(PLACEMENTS), "UTC")
    shop.advance(NOW)
    shop.install(write_bundle(tmp_path, ManifestFacts("one", 1, ("view", "purchase")), dataset, [], blank(2)))
    rows = Collector(dataset, ("home_for_you",)).collect(shop, ("view", "purchase"), NOW + 48 * HOUR)
    names = core_rs.feature_names()
    context = rows.features[:, [names.index(name) for name in ("on_phone", "in_email", "from_campaign")]]
    hits = {
        (dataset.visitors[who], action): tuple(row)
        for who, row, action in zip(
            rows.visitors[rows.labels.any(axis=1)].tolist(),
            context[rows.labels.any(axis=1)].tolist(),
            rows.labels[rows.labels.any(axis=1)].argmax(axis=1).tolist(),
            strict=True,
        )
    }
    assert hits == {("a", 0): (1, 0, 1), ("a", 1): (0, 1, 0), ("b", 1): (0, 0, 0)}


def blank(actions: int = 1) -> FittedRanking:
    width = len(core_rs.feature_names())
    return FittedRanking(NetworkRanker.blank(width, actions), np.zeros((1, width), np.float32))


def test_exposure_is_the_reciprocal_of_the_position_and_nothing_where_it_was_not_shown():
    positions = np.array([0, 1, 4], np.int32)
    labels, weights = np.zeros((3, 1), np.bool_), np.ones((3, 1), np.float32)
    rows = Rows(np.zeros((3, 1), np.float32), labels, weights, positions, np.zeros(3, np.uint32))
    assert rows.exposure.tolist() == [0, 1, 0.25]
    assert rows.exposure.dtype == np.float32
