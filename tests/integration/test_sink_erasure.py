"""Sink and tables together, where visitors are forgotten: what is kept, what is left out, whoever took or wrote it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from core_rs import event_columns
from server.ports import LogRecord, NewRecord
from server.settings import SinkSettings
from server.workers import rows
from server.workers import sink as module
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from shopkeeper.v1.record_pb2 import DecidedSlate, Decision, RecordKind
from tests.table_shop import KINDS, Shop, either_shop, erasure, event, profile


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from either_shop(request, tmp_path / "store")


@pytest.mark.parametrize("restarted", [True, False])
def test_decisions_made_before_an_erasure_and_stored_after_it_are_dropped(shop: Shop, restarted: bool) -> None:
    def decide(visitor_id: str, time_ms: int) -> None:
        decision = Decision(now_ms=time_ms, slates=[DecidedSlate(placement_id="home")]).SerializeToString()
        record = NewRecord(RecordKind.RECORD_KIND_DECISION, visitor_id, "", decision)
        list(shop.log.import_records([[record]], time_ms))

    shop.add(erasure("v"))
    shop.sink.drain()
    sink = shop.another_sink() if restarted else shop.sink
    decide("v", 999)
    decide("w", 999)
    decide("v", 1_001)
    sink.drain()
    assert shop.rows("SELECT visitor_id, time_ms FROM decisions ORDER BY 1") == [("v", 1_001), ("w", 999)]


@pytest.mark.parametrize("visitor_id", ["v", "o'Neil\\\t]"])
@pytest.mark.parametrize("at_once", [True, False])
def test_erasure_removes_what_came_before_it(shop: Shop, visitor_id: str, at_once: bool) -> None:
    records = [
        event("e1", "a", visitor_id=visitor_id),
        event("e2", "a", visitor_id="w"),
        profile(visitor_id, {"size": "M"}),
        NewRecord(RecordKind.RECORD_KIND_EVENT, visitor_id, "x", b"\xff"),
        erasure(visitor_id),
        event("e3", "a", visitor_id=visitor_id),
        profile(visitor_id, {"city": "Ulm"}),
    ]
    for time_ms, record in enumerate(records):
        shop.add(record, time_ms=time_ms)
        if not at_once:
            shop.sink.drain()
    shop.sink.drain()
    assert shop.rows("SELECT event_id FROM events ORDER BY 1") == [("e2",), ("e3",)]
    assert shop.rows("SELECT trait_names FROM profiles FINAL") == [(["city"],)]
    assert shop.rows("SELECT count() FROM bad_events") == [(0,)]


@pytest.mark.parametrize("at_once", [True, False])
def test_what_another_log_took_before_an_erasure_is_left_out_though_it_comes_after(shop: Shop, at_once: bool) -> None:
    shop.add(erasure("v"), time_ms=10)
    shop.add(erasure("v"), time_ms=8)  # of a machine whose clock is behind
    if not at_once:
        shop.sink.drain()
    bad = NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "x", b"\xff")
    shop.add(event("late", "a"), profile("v", {"size": "M"}), bad, event("other", "a", visitor_id="w"), time_ms=9)
    shop.add(event("back", "a"), profile("v", {"city": "Ulm"}), time_ms=11)
    shop.sink.drain()
    assert shop.rows("SELECT event_id FROM events ORDER BY 1") == [("back",), ("other",)]
    assert shop.rows("SELECT trait_names FROM profiles FINAL") == [(["city"],)]
    assert shop.rows("SELECT count() FROM bad_events") == [(0,)]
    assert shop.rows("SELECT log_offset, time_ms FROM erasures FINAL") == [(2, 10)]


def test_sink_that_gets_parts_of_another_knows_whom_that_one_forgot(shop: Shop) -> None:
    feed = LogFeed(shop.log)
    taken_over: list[Callable[[], Mapping[str, int]]] = []
    feed.begin = taken_over.append  # type: ignore[method-assign, assignment]
    sink = Sink(feed, shop.store, SinkSettings())
    shop.add(erasure("v"), time_ms=10)
    shop.sink.drain()
    shop.add(event("late", "a"), profile("v", {"size": "M"}), time_ms=9)
    (positions,) = taken_over
    feed._offset = positions()["log"]
    assert sink.drain() == 2
    assert shop.rows("SELECT event_id FROM events") == []
    assert shop.rows("SELECT visitor_id FROM profiles") == []


def test_sweep_erases_what_another_sink_wrote_late(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(event_id: str, offset: int, time_ms: int) -> None:
        payload = event(event_id, "a").payload
        shop.store.insert("events", rows.event_table(event_columns([(offset, time_ms, payload)]), {offset: time_ms}))

    shop.add(event("e1", "a"), erasure("v"), time_ms=10)
    shop.sink.drain()
    write("taken after it, and told before it, for it came late", 0, 11)
    write("before it, of a version that kept no time", 1, 0)
    write("taken before it", 3, 10)
    write("after it", 4, 11)
    write("after it, of a version that kept no time", 5, 0)
    monkeypatch.setattr(module, "SWEEP_S", 0)
    shop.sink._sweep()
    assert shop.rows("SELECT log_offset FROM events FINAL ORDER BY 1") == [(0,), (4,), (5,)]


@pytest.mark.parametrize("at_once", [True, False])
def test_what_was_taken_after_an_erasure_that_comes_late_stays(shop: Shop, at_once: bool) -> None:
    both = {"size": "M", "city": "Ulm"}
    bad = NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "x", b"\xff")
    steps = [
        (9, event("old", "a")),
        (9, profile("v", both, training=True)),
        (9, profile("w", both)),
        (11, event("new", "a")),
        (11, bad),
        (11, profile("v", {"size": "L"}, training=False)),
        (10, erasure("v")),
        (10, erasure("w")),
        (12, profile("v", {"shoes": "42"})),
    ]
    for time_ms, record in steps:
        shop.add(record, time_ms=time_ms)
        if not at_once:
            shop.sink.drain()
    shop.sink.drain()
    again = shop.another_sink()
    again._feed.begin(dict)  # after a crash all comes again
    again.drain()
    assert shop.rows("SELECT event_id FROM events FINAL") == [("new",)]
    assert shop.rows("SELECT count() FROM bad_events FINAL") == [(1,)]
    found = "SELECT visitor_id, trait_names, trait_values, training FROM profiles"
    assert shop.rows(f"{found} FINAL") == [("v", ["shoes", "size"], ["42", "L"], False)]
    assert not any("city" in names or "M" in values for _, names, values, _ in shop.rows(found)), "nor in older rows"


def test_sweep_takes_an_erasure_that_came_late_though_it_is_old(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    day_ms = 86_400_000
    shop.add(erasure("w"), time_ms=3 * day_ms)
    shop.sink.drain()
    monkeypatch.setattr(module, "SWEEP_S", 0)
    shop.sink._sweep()
    shop.add(erasure("v"), time_ms=10)
    shop.sink.drain()
    made = event("e1", "a").payload
    shop.store.insert("events", rows.event_table(event_columns([(1, 9, made)]), {1: 9}))
    shop.sink._sweep()
    assert shop.rows("SELECT event_id FROM events") == []
    shop.store.insert("events", rows.event_table(event_columns([(1, 9, made)]), {1: 9}))
    shop.sink._sweep()
    assert shop.rows("SELECT event_id FROM events") == [("e1",)], "each once, and those of the day before the newest"


def test_what_is_put_back_after_an_erasure_outlives_the_next_sweep(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add(erasure("v"), time_ms=10)
    shop.sink.drain()
    new = profile("v", training=False)
    record = LogRecord(0, new.kind, 11, "v", "", new.payload)
    shop.sink._writer.write([record._replace(offset=-1), record])
    monkeypatch.setattr(module, "SWEEP_S", 0)
    shop.sink._sweep()
    assert shop.rows("SELECT training FROM profiles FINAL") == [(False,)]
