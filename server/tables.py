"""The table view as processes use it: the sink's own process, and exports for trainers."""

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

import structlog

from server.adapters.asked_store import AskedStore, answer_asks
from server.adapters.chdb_store import ChdbStore
from server.adapters.clickhouse_cluster import ClickHouseCluster
from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.inbox import places_of
from server.adapters.kafka import check_places, topic_name
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.outbox import SqliteOutbox
from server.adapters.sql_store import SqlStore
from server.adapters.sqlite_log import open_log
from server.ports import Feed, StoreBusyError, StoreError, StoreOutdatedError, StoreUnavailableError
from server.settings import Settings, SettingsError
from server.streams import PROFILES
from server.telemetry import SINK_LAG_RECORDS, SINK_RETRIES, configure_logging, serve_metrics
from server.workers.exports import answer_to, answer_wants, make_export
from server.workers.log_feed import LogFeed
from server.workers.outage import Outage
from server.workers.profile_fill import fill_profiles
from server.workers.sink import Sink

_POLL_S: Final = 0.1
_BUSY_S: Final = 30.0
"""Seconds the sink waits for an export that another process is making; a second server's sink gives up after them."""
_WAIT_S: Final = 1.0
"""Seconds between two tries to open the tables."""
RETENTION_FIX: Final = "make sink.retention_days equal on all machines, then run `shopkeeper migrate` on one"

_logger = structlog.get_logger(__name__)


def open_store(settings: Settings) -> SqlStore:
    """Return the tables of the deployment, as they are; chDB's have one owner, which then is this process.

    Raises
    ------
    StoreBusyError : another process owns them
    StoreUnavailableError : their server does not answer
    StoreOutdatedError : they are not up to date
    """
    return _opened(settings, lambda store: store.check())


def prepare_store(settings: Settings) -> SqlStore:
    """Return the tables, brought up to date and with the retention of the settings: the part of `migrate`.

    Raises
    ------
    StoreBusyError : another process owns them
    StoreUnavailableError : their server does not answer
    """
    return _opened(settings, lambda store: store.migrate())


def _sink_store(settings: Settings) -> SqlStore:
    """Return the tables, brought up to date; those of all machines keep their retention, and change only if need be.

    So a sink of a cluster starts though a replica is away: only what alters tables needs every node.

    Raises
    ------
    StoreBusyError : another process owns them
    StoreUnavailableError : their server does not answer
    """

    def first(store: SqlStore) -> None:
        if not settings.clickhouse.server:
            store.migrate()
            return
        try:
            store.check()
        except StoreOutdatedError:
            store.migrate(retain=False)
        if fault := store.retention_fault():
            _logger.warning("retention_differs", reason=fault, fix=RETENTION_FIX)

    return _opened(settings, first)


def _opened(settings: Settings, first: Callable[[SqlStore], object]) -> SqlStore:
    """Return the tables once `first` was done."""
    consent, days = settings.privacy.consent_default, settings.sink.retention_days
    facts: dict[str, Any] = {"consent_default": consent, "retention_days": days, "time_zone": settings.time_zone}
    store: SqlStore
    if settings.clickhouse.server:
        kind = ClickHouseCluster if settings.clickhouse.cluster else ClickHouseStore
        store = kind(settings.clickhouse, **facts)
    else:
        store = ChdbStore(settings.store_dir, **facts)
    try:
        first(store)
    except BaseException:
        store.close()
        raise
    return store


def run_sink(settings: Settings, ready: Callable[[str], object]) -> None:
    """Keep the tables up to date and answer wishes for exports, until SIGTERM; `ready` is told when they are open.

    Raises
    ------
    StoreBusyError : another process owns the tables and keeps them
    """
    configure_logging(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    serve_metrics(settings, settings.listen.workers)
    with _awaited_store(settings, stopping) as store, _feed(settings) as feed:
        if store is not None:
            sink = Sink(feed, store, settings.sink)
            fill(settings, store, stopping)
            ready("sink")
            sink.run(stopping, lambda: _answer(sink, store, settings.export_dir))


@contextmanager
def reached_store(settings: Settings, timeout_s: float) -> Iterator[SqlStore]:
    """Give the tables with all that the local log holds: opened here, or through the process that owns them.

    Raises
    ------
    StoreBusyError : their owner does not answer in time
    """
    try:
        store = _own_store(settings)
    except StoreBusyError as busy:
        yield AskedStore(settings.export_dir, busy, timeout_s=timeout_s)
        return
    with closing(store):
        drain(settings, store)
        yield store


def _own_store(settings: Settings) -> SqlStore:
    """Return tables that this process may fill; those in chDB that nobody made yet are made."""
    is_new = not (settings.clickhouse.server or settings.store_dir.exists())
    return prepare_store(settings) if is_new else open_store(settings)


def drain(settings: Settings, store: SqlStore) -> None:
    """Bring the local log into tables that this process owns; those that follow Kafka are filled by their sinks."""
    if not settings.tables_follow_kafka:
        with closing(open_log(settings)) as log:
            Sink(LogFeed(log), store, settings.sink).drain()


def fill(settings: Settings, store: SqlStore, stopping: threading.Event) -> None:
    """Bring what Kafka may keep no longer into tables that follow it.

    Raises
    ------
    StoreError : the log followed topics of another prefix
    """
    if settings.tables_follow_kafka:
        check_places(settings.kafka, places_of(settings.log_path))
        with closing(open_log(settings)) as log, closing(SqliteOutbox(settings.log_path)) as outbox:
            fill_profiles(log, store, f"{topic_name(settings.kafka, PROFILES)}/{outbox.origin}", stopping)


@contextmanager
def _feed(settings: Settings) -> Iterator[Feed]:
    if settings.tables_follow_kafka:
        with closing(KafkaFeed(settings.kafka, "sink")) as feed:
            yield feed
    else:
        with closing(open_log(settings)) as log:
            yield LogFeed(log)


def request_export(settings: Settings, timeout_s: float) -> Path:
    """Return a new folder with all that the log holds: made here if no process owns the tables, else by their owner.

    Raises
    ------
    StoreError : it could not be made, or not in time
    SettingsError : the owner takes who has not answered otherwise than `settings`
    """
    want = settings.export_dir / f"{time.time_ns() // 1_000_000}-{uuid4().hex[:8]}.want"
    deadline = time.monotonic() + timeout_s
    asked = False
    try:
        while True:
            try:
                if made := answer_to(want):
                    _check_consent(settings, made)
                return made or _export(settings, want.with_suffix(""), deadline)
            except StoreBusyError as busy:
                if time.monotonic() > deadline:
                    raise StoreError(f"no export within {timeout_s:g} s; {busy}") from busy
            if not asked:
                want.parent.mkdir(parents=True, exist_ok=True)
                want.touch()
                asked = True
            time.sleep(_POLL_S)
    finally:
        want.unlink(missing_ok=True)


def _check_consent(settings: Settings, export: Path) -> None:
    default = json.loads((export / "meta.json").read_text(encoding="utf-8"))["consent_default"]
    if default != settings.privacy.consent_default:
        shutil.rmtree(export)
        raise SettingsError(
            f"the server that has the tables runs with privacy.consent_default={str(default).lower()}; start it with "
            f"{str(not default).lower()}, or ask with its setting"
        )


def describe_tables(settings: Settings, timeout_s: float) -> dict[str, object]:
    """Return what trainers need to read the tables of a server themselves, once these hold all that the log does.

    Raises
    ------
    SettingsError : they are in chDB
    StoreError : they do not catch up in time
    """
    if not settings.clickhouse.server:
        raise SettingsError("tables in chDB have one reader; set clickhouse.server, or use `shopkeeper train`")
    with closing(cast("ClickHouseStore", open_store(settings))) as store:
        if settings.tables_follow_kafka:
            _await_sink(settings, store, time.monotonic() + timeout_s)
        else:
            drain(settings, store)
        facts = {"create_ms": time.time_ns() // 1_000_000, "time_zone": settings.time_zone}
        return {**store.reach(), **store.shard_queries(), **facts}


def _answer(sink: Sink, store: SqlStore, folder: Path) -> None:
    """Do what other processes asked for."""
    answer_wants(sink.drain, store, folder)
    answer_asks(sink.drain, store, folder)


@contextmanager
def _awaited_store(settings: Settings, stopping: threading.Event) -> Iterator[SqlStore | None]:
    """Give the tables once they can be opened: a server is awaited for ever, an owner for a while; None if stopped."""
    outage = Outage("tables_not_open", "what the reason says; it is tried again")
    deadline = time.monotonic() + _BUSY_S
    while not stopping.is_set():
        try:
            store = _sink_store(settings)
        except StoreError as error:
            SINK_RETRIES.labels("tables").inc()
            SINK_LAG_RECORDS.set(1)  # how many wait is not known, and the alarms shall see it
            is_busy = isinstance(error, StoreBusyError) and time.monotonic() < deadline
            if not (is_busy or isinstance(error, StoreUnavailableError)):
                raise
            outage.tell(error)
            stopping.wait(_WAIT_S)
        else:
            outage.end()
            with closing(store):
                yield store
            return
    yield None


def _export(settings: Settings, folder: Path, deadline: float) -> Path:
    """Export here. Tables that follow Kafka are filled by their sink alone, so that one is awaited."""
    with closing(_own_store(settings)) as store:
        if settings.tables_follow_kafka:
            return make_export(lambda: _await_sink(settings, store, deadline), store, folder)
        return make_export(lambda: drain(settings, store), store, folder)


def _await_sink(settings: Settings, store: SqlStore, deadline: float) -> None:
    """Wait until the tables have all that this log and Kafka hold now.

    Raises
    ------
    StreamUnavailableError : Kafka does not answer, or cannot take the log
    StoreError : they do not, at the deadline
    """
    _ends(settings, store)  # so that a Kafka that nothing comes to is not awaited
    with closing(SqliteOutbox(settings.log_path)) as outbox:
        newest = outbox.newest(outbox.shipped())
        _until(deadline, lambda: outbox.shipped() >= newest, "this log is not shipped")
    goal = _ends(settings, store)
    _until(deadline, lambda: _reach(store.positions(), goal), "the tables are behind Kafka")


def _ends(settings: Settings, store: SqlStore) -> dict[str, int]:
    """Return where the partitions of Kafka end now."""
    with closing(KafkaFeed(settings.kafka)) as feed:
        feed.begin(store.positions)
        return feed.ends()


def _reach(positions: Mapping[str, int], goal: Mapping[str, int]) -> bool:
    return all(positions.get(name, -1) >= offset for name, offset in goal.items())


def _until(deadline: float, condition: Callable[[], bool], why: str) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise StoreError(f"no export in time: {why}; is a server with its sink and exchange running?")
        time.sleep(_POLL_S)
