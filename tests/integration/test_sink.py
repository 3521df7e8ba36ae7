"""Sink and tables together: what the log says is what the tables hold, whatever is repeated, broken or erased."""

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from server.adapters.memory_log import MemoryLog
from server.ports import LogRecord, NewRecord, StoreError
from server.settings import SinkSettings
from server.workers import rows
from server.workers import sink as module
from server.workers.exports import KEEP_S, answer_wants
from server.workers.log_feed import LogFeed
from server.workers.rows import Row, document_row
from server.workers.sink import Sink
from shopkeeper.v1.item_pb2 import Item, PromotionInterval
from shopkeeper.v1.placement_pb2 import Placement
from shopkeeper.v1.recommendation_service_pb2 import Reason, RecommendRequest
from shopkeeper.v1.record_pb2 import DecidedSlate, Decision, DocumentChange, ItemChange, RecordKind
from tests.table_shop import KINDS, Shop, either_shop, event, item, profile, wait_until
from trainers.shop import item_payloads


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from either_shop(request, tmp_path / "it's a store")


def test_event_lines_become_rows(shop: Shop) -> None:
    shop.add(event("e1", "a", "b", user_id="u", price=2.5), event("e2"))
    assert shop.sink.drain() == 2
    assert shop.offset() == 2
    sql = """
    SELECT event_id, line, item_id, visitor_id, anonymous_id, event_type, time_ms, quantity, price, query
    FROM events FINAL ORDER BY event_id, line
    """
    assert shop.rows(sql) == [
        ("e1", 0, "a", "u", "v", "purchase", 5, 2, 2.5, ""),
        ("e1", 1, "b", "u", "v", "purchase", 5, 2, 2.5, ""),
        ("e2", 0, "", "v", "v", "search", 5, 0, None, "cheese"),
    ]


def test_repeated_batch_leaves_one_copy(shop: Shop) -> None:
    shop.add(event("e1", "a", "b"), profile("v", {"size": "M"}), item(ItemChange(item=Item(item_id="a"))))
    shop.sink.drain()
    assert shop.another_sink().drain() == 0
    shop.store.query("TRUNCATE TABLE sink_offsets")
    assert shop.another_sink().drain() == 3
    counts = [f"(SELECT count() FROM {table} FINAL)" for table in ("events", "profiles", "items")]  # noqa: S608
    assert shop.rows(f"SELECT {', '.join(counts)}") == [(2, 1, 1)]


@pytest.mark.parametrize("broken_table", ["events", "sink_offsets"])
def test_interrupted_batch_is_written_again(shop: Shop, monkeypatch: pytest.MonkeyPatch, broken_table: str) -> None:
    insert = shop.store.insert

    def interrupted(table: str, rows: pa.Table) -> None:
        if table == broken_table:
            raise KeyboardInterrupt
        insert(table, rows)

    shop.add(event("e1", "a"))
    with monkeypatch.context() as patch:
        patch.setattr(shop.store, "insert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shop.sink.drain()
    assert shop.offset() == 0
    shop.another_sink().drain()
    assert shop.rows("SELECT count() FROM events FINAL") == [(1,)]
    assert shop.offset() == 1


def test_tables_of_another_log_are_refused(shop: Shop) -> None:
    shop.add(event("e1", "a"))
    shop.sink.drain()
    with pytest.raises(StoreError, match="hold offset 1 and the log ends at 0, so they belong to another log; move"):
        Sink(LogFeed(MemoryLog()), shop.store, SinkSettings())


def test_poison_records_are_set_aside_and_the_batch_goes_on(shop: Shop) -> None:
    bad = [NewRecord(kind, "v", f"x{kind}", b"\xff\xff\xff") for kind in range(1, 5)]
    shop.add(*(event(f"e{number}", "a") for number in range(5)), *bad, event("e9", "a"))
    shop.sink.drain()
    assert shop.rows("SELECT count() FROM events FINAL") == [(6,)]
    assert shop.rows(
        "SELECT log_offset, kind, visitor_id, record_id, hex(payload) FROM bad_events FINAL ORDER BY 1"
    ) == [(6 + index, index + 1, "v", f"x{index + 1}", "FFFFFF") for index in range(4)]
    assert shop.rows("SELECT count() FROM bad_events WHERE reason = ''") == [(0,)]


def test_records_of_which_no_row_can_be_made_are_set_aside(shop: Shop) -> None:
    never = Timestamp(seconds=2**60)
    slate = DecidedSlate(placement_id="home", item_ids="a", scores=[1.0], reasons=[9_999])  # type: ignore[list-item]
    shop.add(
        item(ItemChange(item=Item(item_id="a"), set_time=never)),
        item(ItemChange(item=Item(item_id="b", release_time=never))),
        NewRecord(RecordKind.RECORD_KIND_DECISION, "v", "", Decision(slates=[slate]).SerializeToString()),
        item(ItemChange(item=Item(item_id="c"))),
    )
    assert shop.sink.drain() == 4
    assert shop.rows("SELECT log_offset FROM bad_events FINAL ORDER BY 1") == [(1,), (2,), (3,)]
    assert shop.rows("SELECT item_id FROM items FINAL") == [("c",)]


def test_rows_that_their_table_refuses_are_set_aside(shop: Shop) -> None:
    shop.store.query("ALTER TABLE events ADD CONSTRAINT known CHECK item_id != 'poison'")
    items = ["poison" if number in {3, 4, 9} else "a" for number in range(10)]
    shop.add(*(event(f"e{number}", item_id) for number, item_id in enumerate(items)), profile("v", {"size": "M"}))
    assert shop.sink.drain() == 11
    assert shop.rows("SELECT count() FROM events FINAL") == [(7,)]
    assert shop.rows("SELECT record_id, reason LIKE '%known%' FROM bad_events FINAL ORDER BY 1") == [
        ("e3", True),
        ("e4", True),
        ("e9", True),
    ]
    payloads = [record.payload for record in shop.log.read(0, 99) if record.record_id in {"e3", "e4", "e9"}]
    assert shop.rows("SELECT hex(payload) FROM bad_events FINAL ORDER BY record_id") == [
        (payload.hex().upper(),) for payload in payloads
    ]


def test_rows_that_do_not_fit_their_table_are_set_aside(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(record: LogRecord, change: DocumentChange) -> Row:
        made = document_row(record, change)
        return {**made, "deleted": "maybe"} if change.placement.placement_id == "bad" else made

    monkeypatch.setattr(rows, "document_row", row)
    for name in ("good", "bad"):
        change = DocumentChange(placement=Placement(placement_id=name))
        shop.add(NewRecord(RecordKind.RECORD_KIND_DOCUMENT, "", "", change.SerializeToString()))
    shop.sink.drain()
    assert shop.rows("SELECT document_id FROM documents FINAL") == [("good",)]
    assert shop.rows("SELECT log_offset FROM bad_events FINAL") == [(2,)]


def test_items_follow_masks_times_and_deletions(shop: Shop) -> None:
    def at(seconds: int) -> Timestamp:
        return Timestamp(seconds=seconds)

    whole = Item(item_id="a", title="Brie", category_path=["FOOD", "CHEESE"], stock_quantity=0)
    whole.price.units = 3
    shop.add(item(ItemChange(item=whole, set_time=at(10))), item(ItemChange(item=Item(item_id="b"), set_time=at(10))))
    shop.sink.drain()
    cheaper = Item(item_id="a", title="not in the mask")
    cheaper.sale_price.units = 2
    shop.add(
        item(ItemChange(item=cheaper, update_paths=["sale_price.units", "stock_quantity"], set_time=at(20))),
        item(ItemChange(item=Item(item_id="a", title="late"), update_paths=["title"], set_time=at(15))),
        item(ItemChange(item=Item(item_id="b"), deleted=True, set_time=at(20))),
    )
    shop.sink.drain()
    sql = "SELECT item_id, deleted, title, category_path, price, sale_price, stock_quantity FROM items FINAL ORDER BY 1"
    assert shop.rows(sql) == [
        ("a", False, "Brie", ["FOOD", "CHEESE"], 3.0, 2.0, None),
        ("b", True, "", [], None, None, None),
    ]


def test_profiles_merge(shop: Shop) -> None:
    shop.add(profile("v", {"size": "M", "city": "Ulm"}, training=True))
    shop.sink.drain()
    shop.add(profile("v", {"size": "L"}), profile("v", {"city": ""}, training=False))
    shop.sink.drain()
    sql = "SELECT trait_names, trait_values, training, marketing FROM profiles FINAL"
    assert shop.rows(sql) == [(["size"], ["L"], False, None)]


def test_decisions_become_one_row_a_slate(shop: Shop) -> None:
    reasons = [Reason.REASON_BUY_AGAIN] * 2
    slate = DecidedSlate(placement_id="home", item_ids="ab", scores=[1.5, 1.5], reasons=reasons)
    request = RecommendRequest(request_id="r")
    decision = Decision(now_ms=7, request=request, slates=[slate], degraded=["model_missing"])
    shop.add(NewRecord(RecordKind.RECORD_KIND_DECISION, "v", "r", decision.SerializeToString()))
    shop.sink.drain()
    sql = """
    SELECT request_id, time_ms, visitor_id, placement_id, item_ids, scores, reasons, degraded
    FROM decisions
    """
    assert shop.rows(sql) == [
        ("r", 7, "v", "home", ["a", "b"], [1.5, 1.5], ["buy_again", "buy_again"], ["model_missing"])
    ]


def test_documents_are_kept_as_they_are_now_and_exported(shop: Shop, tmp_path: Path) -> None:
    def change(text: str, *, deleted: bool = False) -> NewRecord:
        document = DocumentChange(placement=Placement(placement_id="home", description=text), deleted=deleted)
        return NewRecord(RecordKind.RECORD_KIND_DOCUMENT, "", "", document.SerializeToString())

    shop.add(change("old"), change("new"))
    shop.sink.drain()
    shop.store.export(tmp_path / "first")
    (row,) = pq.read_table(tmp_path / "first/placements.parquet").to_pylist()
    assert Placement.FromString(base64.b64decode(row["payload"])).description == "new"
    shop.add(change("new", deleted=True))
    shop.sink.drain()
    assert shop.rows("SELECT kind, document_id, deleted FROM documents FINAL") == [("placement", "home", True)]
    shop.store.export(tmp_path / "second")
    assert pq.read_table(tmp_path / "second/placements.parquet").num_rows == 0


def test_old_rows_end_as_the_settings_say(shop: Shop) -> None:
    shop.add(event("old", "a", time_ms=5), event("new", "a", time_ms=time.time_ns() // 1_000_000))
    shop.sink.drain()
    shop.store._retention_days = 30
    for _ in range(2):
        assert shop.store.migrate() == []
    shop.store.query("OPTIMIZE TABLE events FINAL")
    assert shop.rows("SELECT event_id FROM events") == [("new",)]
    shop.store._retention_days = 0
    shop.store.migrate()
    assert "TTL" not in shop.rows("SHOW CREATE TABLE events")[0][0]


@pytest.mark.parametrize("consent_default", [True, False])
def test_export_holds_what_trainers_may_see(shop: Shop, tmp_path: Path, consent_default: bool) -> None:
    shop.store._consent_default = consent_default
    shop.add(
        event("e1", "a", visitor_id="open", time_ms=30),
        event("e2", "b", "a", visitor_id="granted", price=1.25, time_ms=20),
        event("e3", "a", visitor_id="denied"),
        event("e4", "a", visitor_id="phone-of-denied"),
        event("e5", "a", visitor_id="phone-of-denied", user_id="denied"),
        event("e6", "a", visitor_id="phone-that-denied"),
        event("e7", "a", visitor_id="phone-that-denied", user_id="user-of-it"),
        event("e8", "a", visitor_id="user-of-it", user_id="user-of-it"),
        event("e9", "a", visitor_id="tablet-of-it", user_id="user-of-it"),
        event("e10", "a", visitor_id="tablet-of-it"),
        profile("phone-that-denied", training=False),
        profile("granted", {"size": "M"}, training=True),
        profile("denied", training=False),
        item(ItemChange(item=Item(item_id="a", title="Brie", availability=Item.AVAILABILITY_UNAVAILABLE))),
        item(ItemChange(item=Item(item_id="b"), deleted=True)),
    )
    shop.sink.drain()
    shop.store.export(tmp_path / "export")
    events = pq.read_table(tmp_path / "export" / "events.parquet")
    granted = [("e2", 0, "granted", "b", 1.25), ("e2", 1, "granted", "a", 1.25)]
    columns = [events.column(name).to_pylist() for name in ("event_id", "line", "visitor_id", "item_id", "price")]
    assert list(zip(*columns, strict=True)) == granted + [("e1", 0, "open", "a", None)] * consent_default
    items = pq.read_table(tmp_path / "export" / "items.parquet")
    assert items.column("item_id").to_pylist() == ["a"]
    assert items.column("availability").to_pylist() == ["unavailable"]
    assert items.schema.field("category_path").type.value_type == pa.string()
    profiles = pq.read_table(tmp_path / "export" / "profiles.parquet")
    assert profiles.column("visitor_id").to_pylist() == ["granted"]
    meta = json.loads((tmp_path / "export" / "meta.json").read_text())
    assert meta == {
        "positions": {"log": 15},
        "consent_default": consent_default,
        "time_zone": "UTC",
        "line_count": 2 + consent_default,
        "event_count": 1 + consent_default,
        "visitor_count": 1 + consent_default,
        "start_ms": 20,
        "end_ms": 30 if consent_default else 20,
        "item_count": 1,
        "profile_count": 1,
    }
    assert not list(tmp_path.glob(".*.part"))


def test_trainers_get_the_promotions_of_an_item_as_they_were_sent(shop: Shop, tmp_path: Path) -> None:
    promoted = Item(item_id="a")
    for kind, start, end in ((PromotionInterval.KIND_MAILER, 10, 20), (PromotionInterval.KIND_DISPLAY, 15, 30)):
        interval = promoted.promotion_intervals.add(kind=kind)
        interval.start_time.seconds, interval.end_time.seconds = start, end
    promoted.promotion_intervals[1].share = 0.25
    shop.add(item(ItemChange(item=promoted)), item(ItemChange(item=Item(item_id="b"))))
    shop.sink.drain()
    shop.store.export(tmp_path / "export")
    first, second = map(ItemChange.FromString, item_payloads(pl.read_parquet(tmp_path / "export" / "items.parquet")))
    promoted.promotion_intervals[0].share = 1.0
    assert list(first.item.promotion_intervals) == list(promoted.promotion_intervals)
    assert not second.item.promotion_intervals


def test_run_retries_until_the_store_takes_the_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "POLL_S", 0.01)
    insert, failures = shop.store.insert, [StoreError("disk")] * 2

    def failing(table: str, rows: pa.Table) -> None:
        if failures:
            raise failures.pop()
        insert(table, rows)

    monkeypatch.setattr(shop.store, "insert", failing)
    sink = Sink(LogFeed(shop.log), shop.store, SinkSettings(batch_ms=1))
    stopping = threading.Event()
    thread = threading.Thread(target=sink.run, args=(stopping, lambda: None))
    thread.start()
    shop.add(event("e1", "a"))
    wait_until(lambda: shop.offset() == 1)
    assert failures == []
    shop.add(event("e2", "a"))
    stopping.set()
    thread.join()
    assert shop.offset() == 2


def test_changed_migration_is_refused(shop: Shop) -> None:
    assert shop.store.migrate() == []
    shop.store.query("ALTER TABLE migrations DELETE WHERE name LIKE '0003%' SETTINGS mutations_sync = 2")
    assert len(shop.store.migrate()) == 1, "a kill between a migration and its record must not block the next start"
    shop.store.query(
        "ALTER TABLE migrations UPDATE checksum = 'x' WHERE name = '0002_items' SETTINGS mutations_sync = 2"
    )
    with pytest.raises(StoreError, match="0002_items was changed"):
        shop.store.migrate()


def test_fault_of_a_statement_is_told(shop: Shop) -> None:
    with pytest.raises(StoreError, match=r"(?i)unknown.table"):
        shop.store.query("SELECT * FROM nowhere")


def test_old_exports_are_removed_though_none_is_asked_for(shop: Shop, tmp_path: Path) -> None:
    for name, age_s in (("old", KEEP_S + 60), ("new", 0)):
        (tmp_path / "exports" / name).mkdir(parents=True)
        os.utime(tmp_path / "exports" / name, (time.time() - age_s,) * 2)
    answer_wants(shop.sink.drain, shop.store, tmp_path / "exports")
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["new"]
