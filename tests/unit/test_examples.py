"""What rankers learn from: candidates of a moment, and where visitors were shown them afterwards."""

import numpy as np
import polars as pl

import core_rs
from server.defaults import PLACEMENTS
from trainers.bundle import Card, Tried, write_bundle
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
    ("a", "tea", "impression", 90, 1),
    ("a", "milk", "click", 1, 2),
    ("a", "milk", "purchase", 1, 0),
    ("a", "tea", "purchase", 1, 0),
    ("b", "milk", "impression", 1, 0),
    ("b", "milk", "impression", 1, 4),
]


def events() -> pl.DataFrame:
    past = [(visitor, item, "purchase", -48, 0) for visitor in "ab" for item in ("tea", "milk", "bread")]
    rows = [*past, *SHOWN]
    return pl.DataFrame(
        {
            "event_id": [f"e{number:02}" for number in range(len(rows))],
            "line": [0] * len(rows),
            "visitor_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "event_type": [row[2] for row in rows],
            "time_ms": [NOW + row[3] * HOUR for row in rows],
            "position": [row[4] for row in rows],
            "quantity": [1] * len(rows),
            "price": [1.0] * len(rows),
        }
    )


def test_impressions_of_the_window_tell_the_best_position_and_clicks_tell_none():
    dataset = Dataset.from_frames(events())
    found = outcomes(dataset, ("purchase",), NOW, NOW + 48 * HOUR)
    names = [
        (dataset.visitors[pair // dataset.n_items], dataset.items[pair % dataset.n_items])
        for pair in found.shown.tolist()
    ]
    assert dict(zip(names, found.positions.tolist(), strict=True)) == {("a", "tea"): 3, ("b", "milk"): 4}


def test_candidates_carry_where_they_were_shown(tmp_path):
    frame = events()
    dataset = Dataset.from_frames(frame)
    shop = Shop(frame, pl.DataFrame({"item_id": ["tea", "milk", "bread"]}), list(PLACEMENTS), "UTC")
    shop.advance(NOW)
    shop.install(write_bundle(tmp_path, Card("one", 1, ("purchase",)), dataset, [], blank()))
    rows = Collector(dataset, ("purchase",), ("home_for_you",), seed=0).collect(shop, NOW + 48 * HOUR)
    assert sorted(rows.positions[rows.labels[:, 0]]) == [0, 3]
    assert Rows.concatenate([rows, rows]).positions.tolist() == [*rows.positions, *rows.positions]


def blank() -> Tried:
    width = len(core_rs.feature_names())
    return Tried(NetworkRanker.blank(width, 1), np.zeros((1, width), np.float32))


def test_exposure_is_the_reciprocal_of_the_position_and_nothing_where_it_was_not_shown():
    positions = np.array([0, 1, 4], np.int32)
    rows = Rows(np.zeros((3, 1), np.float32), np.zeros((3, 1), np.bool_), np.ones(3, np.float32), positions)
    assert rows.exposure.tolist() == [0, 1, 0.25]
    assert rows.exposure.dtype == np.float32
