"""A new machine learns from the tables what Kafka keeps no longer, and the rest from Kafka, each once."""

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from typer.testing import CliRunner

from core_rs import Engine
from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import connect, open_log
from server.cli import restore
from server.cli.main import app
from server.lockfile import FileLock
from server.ports import Arrival, EventLog, Kept, LogUnavailableError, NewRecord
from server.settings import Settings
from server.streams import FOLLOWED, offset_of
from server.tables import fill
from server.telemetry import LOST_OFFSETS
from server.workers.follower import Follower
from server.workers.restore import DUMPS, arrivals_of
from shopkeeper.v1.common_pb2 import Context, Device, Money
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse
from shopkeeper.v1.record_pb2 import ItemChange, RecordKind, Stated
from tests.kafka_shop import Machine, drain, forget_all, kafka_settings, sink_of, topics
from tests.table_shop import TRAINING, Shop, clickhouse_store, erasure, event, item, profile

BOUND = Stated(visitor_id="u", denials=[Stated.Denial(purpose=TRAINING, time_ms=7, bound_ms=8)])
EARLIER = Stated(visitor_id="v3", denials=[Stated.Denial(purpose=TRAINING, time_ms=8, bound_ms=9)])
OLD = [
    *(event(f"old{number}", "a", f"i{number}", visitor_id=f"v{number % 5}", time_ms=number) for number in range(40)),
    event("login", "a", visitor_id="phone", user_id="u", time_ms=50),
    event("search", visitor_id="v1", time_ms=60),
    profile("v1", {"size": "M"}, training=True),
    event("gone", "a", visitor_id="w", time_ms=70),
    erasure("w"),
    event("back", "a", visitor_id="w", time_ms=80),
    profile("w", {"size": "L"}),
    NewRecord(RecordKind.RECORD_KIND_STATED, "u", "", BOUND.SerializeToString()),
    profile("v3", training=True),
]
NEW = [
    *(event(f"new{number}", "b", visitor_id=f"v{number % 5}", time_ms=100 + number) for number in range(20)),
    profile("v1", {"city": "Ulm"}),
    NewRecord(RecordKind.RECORD_KIND_STATED, "v3", "", EARLIER.SerializeToString()),
    erasure("v2"),
    event("again", "c", visitor_id="v2", time_ms=200),
]
PRICE = Money(currency_code="EUR", units=1, nanos=990_000_000)
VISITORS = ["v0", "v1", "v2", "v3", "v4", "u", "w"]


def whole() -> NewRecord:
    message = Event(
        event_id="whole",
        event_type=EventType.EVENT_TYPE_CLICK,
        event_time=Timestamp(seconds=1, nanos=5_000_000),
        context=Context(
            visitor_id="v3", session_id="s", device=Device.DEVICE_PHONE, country_code="DE", store_id="7",
            campaign_id="c", query="q",
        ),
        items=[
            EventItem(item_id="x", quantity=3, position=4, price=PRICE),
            EventItem(item_id="y", quantity=1),
        ],
        attribution_token="token",  # noqa: S106
    )  # fmt: skip
    return NewRecord(RecordKind.RECORD_KIND_EVENT, "v3", "whole", message.SerializeToString())


def add(machine: Machine, *records: NewRecord) -> None:
    """Let the records come one after the other."""
    for number, record in enumerate(records, machine.log.last_offset()):
        machine.add(record, time_ms=1_000 + number)


def live(log: EventLog) -> dict[str, Any]:
    """Return what an engine that follows the log knows of every visitor."""
    engine = Engine()
    engine.apply([(one.offset, one.kind, one.time_ms, one.payload) for one in log.read(0, 10_000)])
    return {name: GetProfileResponse.FromString(engine.profile(name)) for name in VISITORS}


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any]]:
    for section in ("kafka", "clickhouse"):
        for name in ("servers", "server", "prefix", "partitions", "database"):
            value = getattr(getattr(settings, section), name, None)
            if value is not None:
                monkeypatch.setenv(f"SHOPKEEPER__{section.upper()}__{name.upper()}", str(value))
    outcome = CliRunner().invoke(app, ["restore", "--data-dir", str(settings.data_dir), "--json"])
    return outcome.exit_code, json.loads(outcome.stdout)


def may_lack_erasures(path: Path) -> bool:
    """Return whether a log knows that there may have been others before the newest erasure."""
    sql = "SELECT until_ms = (SELECT max(time_ms) FROM erasure_times) FROM erasures_lost"
    with closing(connect(path)) as log:
        found: list[tuple[int]] = log.execute(sql).fetchall()
    return found == [(1,)]


async def test_new_machine_knows_what_an_old_one_does(
    kafka_address: str, clickhouse_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = topics(kafka_settings(kafka_address))
    tables = Shop(clickhouse_store(clickhouse_address))
    with Machine(tmp_path / "old", kafka) as machine:
        change = ItemChange(item=Item(item_id="a", category_path=["tea"]))
        add(machine, item(change), *OLD, whole())
        count = machine.ship()
        with sink_of(kafka, tables.store) as sink:
            drain(sink, count)
            await forget_all(kafka)
            add(machine, *NEW)
            machine.ship()
            drain(sink, len(NEW))
        machine.log.erase("w")
        machine.log.erase("v2")
        wanted = live(machine.log)
    settings = Settings(data_dir=tmp_path / "new", kafka=kafka, clickhouse=tables.store._settings)  # type: ignore[attr-defined]
    status, found = run(settings, monkeypatch)
    assert (status, found["records"]) == (0, {"erasure": 2, "profile": 3, "stated": 5, "event": 36})
    assert may_lack_erasures(settings.log_path)
    with closing(KafkaFeed(kafka, topics=("events",))) as feed, closing(SqliteInbox(settings.log_path)) as inbox:
        feed.begin(inbox.places)
        assert not feed.missed()
        places = {f"{kafka.prefix}.{topic}/{part}": at - 1 for (topic, part), at in feed.begins().items()}
        assert places.items() <= inbox.places().items()
    with closing(KafkaFeed(kafka, topics=FOLLOWED)) as feed, closing(SqliteInbox(settings.log_path)) as inbox:
        follower = Follower(feed, inbox)
        follower.catch_up(threading.Event(), 60)
        assert follower.step() == 0
    with closing(open_log(settings)) as log, closing(SqliteOutbox(settings.log_path)) as outbox:
        assert live(log) == wanted
        assert {one.name for one in wanted["v0"].live_state.categories} == {"tea"}
        granted = {name: [one.granted for one in wanted[name].profile.consents] for name in ("u", "v3")}
        assert granted == {"u": [False], "v3": [True]}, "the grant of v3 is later than the denial, and has its time"
        records = log.read(0, 10_000)
        ids = [one.record_id for one in records if one.kind == RecordKind.RECORD_KIND_EVENT]
        assert len(set(ids)) == len(ids)
        assert outbox.read(0, 10) == [], "nothing of it is shipped again"
        payload = next(one.payload for one in records if one.record_id == "whole")
        assert Event.FromString(payload) == Event.FromString(whole().payload)
    newer = settings.model_copy(update={"data_dir": tmp_path / "newer"})
    run(newer, monkeypatch)
    lost = LOST_OFFSETS._value.get()
    await forget_all(kafka)
    with closing(KafkaFeed(kafka, topics=FOLLOWED)) as feed, closing(SqliteInbox(newer.log_path)) as inbox:
        Follower(feed, inbox).step()
    assert LOST_OFFSETS._value.get() - lost == len(NEW), "what ended after the restoration is missed, and counted"
    status, found = run(settings, monkeypatch)
    assert (status, "is not empty" in found["error"]["what"]) == (1, True)
    tables.store.close()


def test_a_restoration_that_is_given_nothing_ends(
    kafka_address: str, clickhouse_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = topics(kafka_settings(kafka_address))
    tables = Shop(clickhouse_store(clickhouse_address))
    with Machine(tmp_path / "old", kafka) as machine:
        add(machine, item(ItemChange(item=Item(item_id="a"))))
        machine.ship()
    settings = Settings(data_dir=tmp_path / "new", kafka=kafka, clickhouse=tables.store._settings)  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(restore, "PATIENCE_S", 0.5)
        patch.setattr(KafkaFeed, "read_arrivals", lambda *_: ([], {}))
        status, found = run(settings, monkeypatch)
    assert status == 4
    assert "gave nothing for 0.5 s; look at the brokers" in found["error"]["why"]
    (settings.data_dir / ".restore-killed").mkdir()
    status, found = run(settings, monkeypatch)
    assert (status, found["records"]) == (0, {}), "what failed left nothing that is in the way"
    assert list(settings.data_dir.glob(".restore-*")) == []
    tables.store.close()


async def test_a_restoration_that_fails_halfway_leaves_an_empty_log(
    kafka_address: str, clickhouse_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = topics(kafka_settings(kafka_address))
    tables = Shop(clickhouse_store(clickhouse_address))
    with Machine(tmp_path / "old", kafka) as machine, sink_of(kafka, tables.store) as sink:
        add(machine, profile("v1", training=True), event("e1", "a"))
        drain(sink, machine.ship())
        await forget_all(kafka)
    settings = Settings(data_dir=tmp_path / "new", kafka=kafka, clickhouse=tables.store._settings)  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(restore, "_GROUP", 1)
        taken = SqliteInbox.take

        def take(inbox: SqliteInbox, arrivals: Sequence[Arrival], places: Mapping[str, int]) -> int:
            if any(one.record.kind == RecordKind.RECORD_KIND_EVENT for one in arrivals):
                raise LogUnavailableError("the disk is full")
            return taken(inbox, arrivals, places)

        patch.setattr(SqliteInbox, "take", take)
        status, found = run(settings, monkeypatch)
    assert (status, found["error"]["why"]) == (4, "the disk is full")
    with closing(open_log(settings)) as log:
        assert log.last_offset() == 0
        status, found = run(settings, monkeypatch)
        assert (status, "another process keeps the log busy" in found["error"]["why"]) == (4, True)
    with FileLock(settings.data_dir / "serve.lock"):
        status, found = run(settings, monkeypatch)
        assert (status, "is served by process" in found["error"]["why"]) == (1, True)
    with monkeypatch.context() as patch:

        def write(settings: Settings, _: SqliteInbox) -> None:
            with closing(open_log(settings)) as log:
                list(log.import_records([[event("meanwhile", "a")]], 9))

        patch.setattr(restore, "_take_first", write)
        status, found = run(settings.model_copy(update={"data_dir": tmp_path / "other"}), monkeypatch)
        assert (status, "is not empty" in found["error"]["what"]) == (1, True)
    status, found = run(settings, monkeypatch)
    assert (status, found["records"]) == (0, {"profile": 1, "stated": 1, "event": 1})
    tables.store.close()


def test_log_of_a_lone_machine_is_not_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, found = run(Settings(data_dir=tmp_path), monkeypatch)
    assert (status, "from a backup" in found["error"]["next"]) == (3, True)


async def test_empty_tables_know_who_denied_though_kafka_has_dropped_it(
    kafka_address: str, clickhouse_address: str, tmp_path: Path
) -> None:
    kafka = topics(kafka_settings(kafka_address))
    tables = Shop(clickhouse_store(clickhouse_address))
    settings = Settings(data_dir=tmp_path, kafka=kafka, clickhouse=tables.store._settings)  # type: ignore[attr-defined]
    stopping = threading.Event()
    broken = NewRecord(RecordKind.RECORD_KIND_PROFILE, "v4", "", b"\xff")
    with Machine(tmp_path, kafka) as machine:
        add(machine, profile("v1", {"size": "M", "city": "Ulm"}, training=False), profile("v2", training=False))
        add(machine, profile("v3", training=False), erasure("v3"), broken, event("e0", "a"))
        machine.ship()
        machine.log.erase("v3")
        await forget_all(kafka)
        assert machine.outbox.trim(Kept(2**60, range(2_000, 2**60)), 3) == 2, "v3 is erased"
        later = [profile("v1", {"size": "L", "city": ""}), profile("v2", training=True)]
        add(machine, *later, *(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(1, 5)))
        machine.ship()
        for _ in range(2):
            fill(settings, tables.store, stopping)
        with sink_of(kafka, tables.store) as sink:
            drain(sink, len(later) + 4)
        fill(settings, tables.store, stopping)
    names = "visitor_id, trait_names, trait_values, training"
    assert tables.rows(f"SELECT {names} FROM profiles FINAL ORDER BY 1") == [  # noqa: S608
        ("v1", ["size"], ["L"], False),
        ("v2", [], [], True),
    ]
    tables.store.export(tmp_path / "export")
    seen = pq.read_table(tmp_path / "export" / "events.parquet").column("visitor_id").to_pylist()
    assert sorted(seen) == ["v2", "v3", "v4"]
    assert tables.rows("SELECT count() FROM bad_events") == [(0,)]
    tables.store.close()


@pytest.mark.parametrize(("topic", "given"), [("events", ["v"]), ("documents", [])])
def test_every_erasure_is_given_but_one_by_another_topic(tmp_path: Path, topic: str, given: list[str]) -> None:
    row = {"visitor_id": "v", "log_offset": offset_of(topic, 0, 3), "time_ms": 1}
    nothing = pa.table({"visitor_id": pa.array([], pa.string())})
    for name in DUMPS:
        pq.write_table(pa.Table.from_pylist([row]) if name == "erasures" else nothing, tmp_path / f"{name}.parquet")
    assert [arrival.record.key for arrival in arrivals_of(tmp_path, {("events", 0): 3})] == given
