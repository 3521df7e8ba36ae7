"""The tables have one owner, and whoever needs an export gets it from that one."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Mapping
from contextlib import closing
from itertools import count
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from server import tables
from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.kafka_stream import KafkaStream
from server.adapters.outbox import SqliteOutbox
from server.adapters.sql_store import SqlStore
from server.adapters.sqlite_log import open_log
from server.cli import doctor
from server.clock import clock_of
from server.ports import StoreBusyError, StoreError, StoreOutdatedError, StoreUnavailableError
from server.settings import ClickHouseSettings, MetricsSettings, Settings, SettingsError, SinkSettings, load_settings
from server.tables import open_store, prepare_store, request_export, run_sink
from server.workers.shipper import Shipper
from tests.kafka_shop import kafka_settings, topics
from tests.servers import ClickHouseServer, free_ports
from tests.table_shop import KINDS, event, wait_until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, {"data_dir": tmp_path / "data", "sink.batch_ms": 10})


def with_server(settings: Settings, address: str) -> Settings:
    clickhouse = ClickHouseSettings(server=address, database=f"test_{uuid4().hex}")
    return settings.model_copy(update={"clickhouse": clickhouse})


def fill(settings: Settings, event_id: str) -> None:
    log = open_log(settings)
    list(log.import_records([[event(event_id, "a")]], 0))
    log.close()


def exported(folder: Path) -> list[str]:
    ids: list[str] = pq.read_table(folder / "events.parquet").column("event_id").to_pylist()
    return ids


def test_second_opener_learns_the_owner(settings: Settings) -> None:
    store = prepare_store(settings)
    with pytest.raises(StoreBusyError, match=f"owned by process {os.getpid()}"):
        open_store(settings)
    store.close()
    open_store(settings).close()


def test_export_is_made_here_when_nobody_owns_the_tables(settings: Settings) -> None:
    fill(settings, "e1")
    assert exported(request_export(settings, 60)) == ["e1"]


def test_export_of_an_owner_that_takes_silence_otherwise_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(settings, "e1")
    made = request_export(settings, 60)
    monkeypatch.setattr("server.tables.answer_to", lambda _: made)
    assert request_export(settings, 60) == made
    opt_in = settings.model_copy(update={"privacy": settings.privacy.model_copy(update={"consent_default": False})})
    with pytest.raises(SettingsError, match=r"runs with privacy\.consent_default=true; start it with false"):
        request_export(opt_in, 60)
    assert not made.exists()


def test_export_of_owned_tables_times_out_with_the_owner(settings: Settings) -> None:
    store = prepare_store(settings)
    with pytest.raises(StoreError, match=rf"no export within 0.2 s; .* process {os.getpid()}"):
        request_export(settings, 0.2)
    store.close()
    assert list(settings.export_dir.iterdir()) == []


def test_export_comes_from_a_server_while_its_sink_runs(settings: Settings, clickhouse_address: str) -> None:
    settings = with_server(settings, clickhouse_address)
    fill(settings, "e1")
    stores = prepare_store(settings), open_store(settings)
    assert exported(request_export(settings, 60)) == ["e1"]
    for store in stores:
        assert store.positions() == {"log": 1}
        store.close()


@pytest.mark.parametrize("kind", KINDS)
def test_opening_alters_no_table(settings: Settings, request: pytest.FixtureRequest, kind: str) -> None:
    """A command may have other settings than the servers: `retention_days` of 0 would take their TTL away."""
    if kind == "clickhouse":
        settings = with_server(settings, request.getfixturevalue("clickhouse_address"))
    servers = settings.model_copy(update={"sink": SinkSettings(retention_days=30)})
    for wanted, days in ((servers, True), (settings, False)):
        with closing(prepare_store(wanted)) as store:
            assert is_retained(store) == days
        other = settings if days else servers
        with closing(open_store(other)) as store:
            assert is_retained(store) == days
        request_export(other, 60)
        with closing(open_store(other)) as store:
            assert is_retained(store) == days
            row = doctor._store(other)  # chDB's owner is this process
        assert row.state == ("ok" if kind == "chdb" else "warn")


def test_tables_of_one_machine_keep_what_its_settings_say(settings: Settings) -> None:
    for days in (30, 7, 0):
        sink = settings.model_copy(update={"sink": SinkSettings(retention_days=days)})
        with closing(tables._sink_store(sink)) as store:
            assert store.retention_fault() == ""


def test_a_first_sink_that_fails_half_way_still_settles_the_retention(
    settings: Settings, clickhouse_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_server(settings, clickhouse_address)
    settings = settings.model_copy(update={"sink": SinkSettings(retention_days=30)})

    def fail(_: SqlStore) -> None:
        raise StoreUnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(SqlStore, "_retain", fail)
        with pytest.raises(StoreUnavailableError, match="gone"):
            tables._sink_store(settings)
    with closing(tables._sink_store(settings)) as store:
        assert store.retention_fault() == ""
        assert store.applied()[-1].startswith("00")


def test_a_sink_of_tables_that_are_up_to_date_alters_none(
    settings: Settings, clickhouse_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a cluster that would need every node, and one may be away."""
    settings = with_server(settings, clickhouse_address)
    tables._sink_store(settings).close()
    asked: list[str] = []
    query = ClickHouseStore.query

    def heard(store: ClickHouseStore, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        asked.append(sql)
        return query(store, sql, params)

    monkeypatch.setattr(ClickHouseStore, "query", heard)
    tables._sink_store(settings).close()
    assert asked
    assert not [sql for sql in asked if sql.split()[0] in {"CREATE", "ALTER", "INSERT"}]


def test_a_sink_leaves_the_retention_of_others_and_says_so(settings: Settings, clickhouse_address: str) -> None:
    settings = with_server(settings, clickhouse_address)
    first, other = (settings.model_copy(update={"sink": SinkSettings(retention_days=days)}) for days in (30, 7))
    with capture_logs() as said, closing(tables._sink_store(first)) as store:
        assert store.retention_fault() == "", "it made the tables"
        assert said == []
    for sink, days in ((other, 7), (settings, 0)):
        with capture_logs() as said, closing(tables._sink_store(sink)) as store:
            found = store.query("SHOW CREATE TABLE events").column(0).to_pylist()[0]
            assert "toIntervalDay(30)" in found
        (line,) = said
        assert f"retention_days = {days} says: events after 30 days, decisions after 30 days" in line["reason"]
        assert "`shopkeeper migrate`" in line["fix"]
        row = doctor._store(sink)
        assert (row.state, row.finding) == ("warn", line["reason"])
        assert "`shopkeeper migrate`" in row.then
    with capture_logs() as said:
        prepare_store(other).close()
    assert [(line["event"], "events after 30 days" in line["reason"]) for line in said] == [("retention_changes", True)]
    assert doctor._store(other).state == "ok"
    with closing(prepare_store(settings)) as store:
        store.query("ALTER TABLE events MODIFY TTL toDateTime(fromUnixTimestamp64Milli(time_ms)) + toIntervalMonth(1)")
        assert "events by another rule" in store.retention_fault()


def is_retained(store: SqlStore) -> bool:
    return any("\nTTL " in text for text in store.query("SHOW CREATE TABLE events").column(0).to_pylist())


@pytest.mark.parametrize("kind", KINDS)
def test_tables_that_are_not_up_to_date_name_migrate(
    settings: Settings, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "clickhouse":
        settings = with_server(settings, request.getfixturevalue("clickhouse_address"))
    with pytest.raises(StoreOutdatedError, match="run `shopkeeper migrate`"):
        open_store(settings)
    with closing(prepare_store(settings)) as store:
        delete = "ALTER TABLE migrations DELETE WHERE name = '0003_profiles' SETTINGS mutations_sync = 2"
        store.query(delete)
    for _ in range(2):
        with pytest.raises(StoreOutdatedError, match="lack the migration 0003_profiles; run `shopkeeper migrate`"):
            open_store(settings)
    row = doctor._store(settings)
    assert (row.state, row.then) == ("fail", "`shopkeeper migrate`")
    prepare_store(settings).close()
    open_store(settings).close()
    assert "offset 0" in doctor._store(settings).finding


def test_sink_waits_for_an_absent_server_and_loses_nothing(settings: Settings, tmp_path: Path) -> None:
    server = ClickHouseServer(tmp_path / "clickhouse")
    port = free_ports(1)[0]
    metrics = MetricsSettings(port=port - settings.listen.workers)
    settings = with_server(settings, server.address).model_copy(update={"metrics": metrics})
    fill(settings, "e1")
    process = multiprocessing.get_context("spawn").Process(target=run_sink, args=(settings, str))
    process.start()
    wait_until(lambda: metric(port, 'shopkeeper_sink_retries_total{cause="tables"}') > 1)
    assert metric(port, "shopkeeper_sink_lag_records") == 1, "not known, and the alarm sees it"
    assert process.exitcode is None
    with server:
        wait_until(lambda: stored(settings) == {"log": 1})
        server.kill()
        fill(settings, "e2")
        process.join(1)
        server.start()
        wait_until(lambda: stored(settings) == {"log": 2})
        server.stop()
        os.kill(process.pid or 0, signal.SIGTERM)
        process.join(30)
    assert process.exitcode == 0


def metric(port: int, name: str) -> float:
    """Return what a process shows to Prometheus; nothing while it shows nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            lines = connection.makefile(encoding="utf-8").read().splitlines()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_export_without_a_sink_on_kafka_says_so(
    settings: Settings, kafka_address: str, clickhouse_address: str
) -> None:
    settings = with_server(settings, clickhouse_address)
    settings = settings.model_copy(update={"kafka": topics(kafka_settings(kafka_address))})
    prepare_store(settings).close()
    fill(settings, "e1")
    with pytest.raises(StoreError, match="no export in time: this log is not shipped"):
        request_export(settings, 0.5)
    with closing(SqliteOutbox(settings.log_path)) as outbox, closing(KafkaStream(settings.kafka)) as stream:
        assert Shipper(outbox, stream, clock_of(settings.clock)).step() == 1
    with pytest.raises(StoreError, match="no export in time: the tables are behind Kafka"):
        request_export(settings, 3)


def test_export_waits_for_what_there_was_and_not_for_what_comes(
    settings: Settings, kafka_address: str, clickhouse_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_server(settings, clickhouse_address)
    settings = settings.model_copy(update={"kafka": topics(kafka_settings(kafka_address))})
    prepare_store(settings).close()
    fill(settings, "e0")
    numbers = count(1)
    with closing(SqliteOutbox(settings.log_path)) as outbox, closing(KafkaStream(settings.kafka)) as stream:
        shipper = Shipper(outbox, stream, clock_of(settings.clock))

        class BusyOutbox(SqliteOutbox):
            """All is shipped, and more comes, whenever somebody looks."""

            def shipped(self) -> int:
                shipper.step()
                fill(settings, f"e{next(numbers)}")
                return super().shipped()

        monkeypatch.setattr(tables, "SqliteOutbox", BusyOutbox)
        with pytest.raises(StoreError, match="no export in time: the tables are behind Kafka"):
            request_export(settings, 3)


def stored(settings: Settings) -> dict[str, int]:
    try:
        store = open_store(settings)
    except StoreError:
        return {}
    with closing(store):
        return store.positions()


def test_sink_process_answers_exports_and_ends_by_sigterm(settings: Settings) -> None:
    process = multiprocessing.get_context("spawn").Process(target=run_sink, args=(settings, str))
    process.start()
    wait_until((settings.store_dir / "metadata").exists)
    fill(settings, "e1")
    folder = request_export(settings, 60)
    assert exported(folder) == ["e1"]
    assert sorted(path.name for path in settings.export_dir.iterdir()) == [folder.name]
    fill(settings, "e2")
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(30)
    assert process.exitcode == 0
    store = open_store(settings)
    assert store.positions() == {"log": 2}
    store.close()
