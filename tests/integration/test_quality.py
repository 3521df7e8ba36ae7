"""The data report: each fault is found where it is, and none where there is none."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.adapters.chdb_store import ChdbStore
from server.adapters.sqlite_log import open_log
from server.cli.main import app
from server.ports import NewRecord
from server.quality import AHEAD_MS, DAY_MS, LATE_MS, RECENT_DAYS, Finding, examine
from server.readiness import facts_of
from server.settings import Settings
from shopkeeper.v1.common_pb2 import Interval, Money
from shopkeeper.v1.event_pb2 import Event, EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Control
from shopkeeper.v1.record_pb2 import DocumentChange, ItemChange, RecordKind
from tests.table_shop import Shop, event, item

NOW = 1_700_000_000_000
RECENT = NOW - DAY_MS
BEFORE = NOW - (RECENT_DAYS + 5) * DAY_MS
SHARED = [event("x", "a", visitor_id=name, time_ms=NOW)._replace(record_id=name) for name in ("v", "w")]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with closing(ChdbStore(tmp_path / "store")) as store:
        shop = Shop(store)
        add(shop, item(ItemChange(item=Item(item_id="a", title="Brie", category_path=["CHEESE"]))))
        yield shop


def add(shop: Shop, *records: NewRecord, arrive_ms: int = NOW) -> None:
    shop.log.append_later(records, arrive_ms)


def purchases(count: int, time_ms: int, prefix: str, *, price: float | None = 1.0) -> list[NewRecord]:
    return [
        event(f"{prefix}{number}", "a", visitor_id=f"v{number}", price=price, time_ms=time_ms + number)
        for number in range(count)
    ]


def found(shop: Shop) -> dict[str, Finding]:
    shop.sink.drain()
    return {finding.check: finding for finding in examine(shop.store, NOW).findings}


def warnings(shop: Shop) -> set[str]:
    return {name for name, finding in found(shop).items() if finding.state == "warn"}


def test_sound_data_have_no_finding_and_are_counted(shop: Shop) -> None:
    for time_ms in (BEFORE, RECENT):
        add(shop, *purchases(100, time_ms, f"{time_ms}-"), arrive_ms=time_ms + 1_000)
    add(shop, *purchases(1, NOW - 1_000, "last"))
    assert warnings(shop) == set()
    (row,) = examine(shop.store, NOW).types
    assert (row["event_type"], row["events"], row["lines"], row["visitors"]) == ("purchase", 201, 201, 100)
    assert (row["first_ms"], row["last_ms"]) == (BEFORE, NOW - 1_000)


def test_empty_tables_say_that_nothing_came(tmp_path: Path) -> None:
    with closing(ChdbStore(tmp_path / "store")) as store:
        store.migrate()
        quality = examine(store, NOW)
        assert [one.check for one in quality.findings if one.state == "warn"] == ["newest event"]
        assert (quality.end_ms, quality.types, set(facts_of(store, 0).values())) == (0, [], {0})


@pytest.mark.parametrize(
    ("check", "records", "text"),
    [
        ("unjoined items", [event("x", "nowhere", time_ms=NOW)], "1 of 1 lines name 1 items"),
        ("late events", [event("x", "a", time_ms=NOW - LATE_MS - 1)], "1 of 1 events came more than 1 day after"),
        (
            "shared event ids",
            [event("x", "a", visitor_id=v, time_ms=NOW)._replace(record_id=v) for v in "vw"],
            "1 ids are of more than one",
        ),
        ("repeated events", [event(name, "a", time_ms=NOW) for name in "xyz"], "2 events say under another id"),
        ("bad records", [NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "x", b"\xff")], "1 records are set aside"),
        ("newest event", [event("x", "a", time_ms=NOW - 3 * DAY_MS)], "3 days old"),
    ],
)
def test_fault_is_found(shop: Shop, check: str, records: list[NewRecord], text: str) -> None:
    add(shop, *records)
    finding = found(shop)[check]
    assert finding.state == "warn"
    assert text in finding.finding
    assert finding.then


def test_event_from_a_clock_that_is_ahead_is_found(shop: Shop) -> None:
    add(shop, event("x", "a", time_ms=NOW), arrive_ms=NOW - AHEAD_MS - 1)
    assert warnings(shop) == {"future events"}


def test_unknown_type_and_unknown_field_are_found(shop: Shop) -> None:
    strange = Event(event_id="x", items=[{"item_id": "a"}])
    strange.context.visitor_id = "v"
    new_type = strange.SerializeToString() + b"\x10\x63"
    change = ItemChange(item=Item(item_id="b", price=Money.FromString(b"\xfa\x3f\x01x")))
    add(shop, NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "x", new_type), item(change))
    assert {"event types", "unknown fields"} <= warnings(shop)


def test_field_that_is_lost_and_type_that_begins_or_ends_are_drift(shop: Shop) -> None:
    add(shop, *purchases(100, BEFORE, "old"), arrive_ms=BEFORE)
    add(shop, *purchases(100, RECENT, "new", price=None), arrive_ms=RECENT)
    searches = [event(f"s{number}", visitor_id=f"v{number}", time_ms=RECENT + number) for number in range(100)]
    add(shop, *searches, arrive_ms=RECENT)
    finding = found(shop)["drift"]
    assert finding.state == "warn"
    assert "purchase has price in 0%, before in 100%" in finding.finding
    assert "search is new (100 events)" in finding.finding
    assert "known_item" not in finding.finding


def test_nothing_is_new_before_there_was_a_time_without_it(shop: Shop) -> None:
    searches = [event(f"s{number}", visitor_id=f"v{number}", time_ms=RECENT + number) for number in range(100)]
    add(shop, *purchases(100, RECENT, "new"), *searches, *purchases(99, BEFORE, "trial"))
    assert found(shop)["drift"] == ("drift", "ok", "too few events came before the last 7 days to compare with", "")
    add(shop, *purchases(1, BEFORE, "one-more-"))
    assert "search is new (100 events)" in found(shop)["drift"].finding


def pin(item_id: str, **fields: Any) -> NewRecord:
    control = Control(control_id=f"first-{item_id}", pin=Control.Pin(item_id=item_id, position=1), **fields)
    change = DocumentChange(control=control)
    return NewRecord(RecordKind.RECORD_KIND_DOCUMENT, "", "", change.SerializeToString())


def test_pin_of_an_item_that_is_not_there_is_found_while_it_is_in_force(shop: Shop) -> None:
    over = Interval(end_time={"seconds": NOW // 1000 - 1})
    add(shop, pin("a"), pin("gone", active=over), pin("resting", paused=True))
    assert found(shop)["pinned items"] == ("pinned items", "ok", "the catalogue has the 1 items that controls pin", "")
    add(shop, pin("later"))
    finding = found(shop)["pinned items"]
    assert (finding.state, finding.finding[:16], finding.then[-10:]) == ("warn", "1 of 2 items tha", "e.g. later")
    add(shop, item(ItemChange(item=Item(item_id="later", title="New"))))
    assert found(shop)["pinned items"].state == "ok"


def shown(*names: str, **named: Any) -> NewRecord:
    record = event(*names, **named)
    message = Event.FromString(record.payload)
    message.event_type = EventType.EVENT_TYPE_IMPRESSION
    return record._replace(payload=message.SerializeToString())


def test_facts_count_what_recommenders_need(shop: Shop) -> None:
    add(
        shop,
        item(ItemChange(item=Item(item_id="gone", title="x"), deleted=True)),
        event("b1", "a", "b", visitor_id="v", time_ms=BEFORE),
        event("b2", "a", visitor_id="v", time_ms=NOW),
        event("b3", "c", "d", visitor_id="v", time_ms=NOW),
        event("b4", "a", visitor_id="w", time_ms=NOW - 20 * DAY_MS),
        event("s", visitor_id="w", time_ms=NOW),
        shown("i", *"abcde", visitor_id="w", time_ms=NOW),
    )
    shop.sink.drain()
    assert facts_of(shop.store, NOW) == {
        "wanted_lines": 6,
        "wanted_lately": 5,
        "looks": 0,
        "bought_lines": 6,
        "viewers_of_two": 0,
        "buyers_of_two": 1,
        "returning_buyers": 1,
        "buyers_of_three_baskets": 1,
        "long_histories": 1,
        "baskets_of_two": 2,
        "items_bought_again": 1,
        "lines_of_one_action": 6,
        "items_with_category": 1,
        "items_with_title": 1,
        "arrivals": 0,
    }


def test_command_reports_quality_and_readiness(tmp_path: Path) -> None:
    with closing(open_log(Settings(data_dir=tmp_path))) as log:
        list(log.import_records([purchases(100, NOW, "e")], NOW))
    report = json.loads(CliRunner().invoke(app, ["doctor", "--data", "--data-dir", str(tmp_path), "--json"]).stdout)
    states = {one["name"]: one["state"] for one in report["recommenders"]}
    assert (states["popular"], states["also_bought"], report["types"][0]["events"]) == ("usable", "waiting", 100)
    assert report["next"] == "new_arrivals"
    shown = CliRunner().invoke(app, ["doctor", "--data", "--data-dir", str(tmp_path)]).stdout
    assert "100 more visitors who bought two items" in shown
