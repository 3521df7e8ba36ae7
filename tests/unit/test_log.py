"""What every `EventLog` must do, run over each adapter; then what only the file can get wrong."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.adapters import log_rows, sqlite_log
from server.adapters.memory_log import MemoryLog
from server.adapters.sqlite_log import SqliteLog
from server.ports import AppendStatus, EventLog, LogRecord, LogUnavailableError, NewRecord
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event
from tests.table_shop import wait_until

EVENT, DECISION, ITEM, PROFILE, ERASURE, STATED = 1, 2, 3, 4, 6, 8
STORED, DUPLICATE, CONFLICT = AppendStatus


def event(number: int, *, key: str = "v", payload: bytes = b"p") -> NewRecord:
    return NewRecord(EVENT, key, f"e{number}", payload)


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    log: EventLog = MemoryLog() if request.param == "memory" else SqliteLog(tmp_path / "data" / "log.sqlite")
    yield log
    log.close()


async def test_records_come_back_in_order(log: EventLog) -> None:
    assert log.last_offset() == 0
    assert log.read(0, 10) == []
    assert await log.append([event(1, payload=b"\x00\xff"), NewRecord(ITEM, "", "", b"")], 7) == [STORED, STORED]
    assert await log.append([event(2, key="w")], 8) == [STORED]
    assert log.read(0, 10) == [
        LogRecord(1, EVENT, 7, "v", "e1", b"\x00\xff"),
        LogRecord(2, ITEM, 7, "", "", b""),
        LogRecord(3, EVENT, 8, "w", "e2", b"p"),
    ]
    assert log.last_offset() == 3


async def test_read_begins_after_an_offset_and_stops_at_the_limit(log: EventLog) -> None:
    await log.append([event(number) for number in range(10)], 0)
    assert [record.offset for record in log.read(3, 4)] == [4, 5, 6, 7]
    assert log.read(10, 4) == []


async def test_bare_kinds_come_without_payload(log: EventLog) -> None:
    await log.append([event(1), NewRecord(DECISION, "v", "", b"large")], 0)
    assert [record.payload for record in log.read(0, 9, bare_kinds=(DECISION,))] == [b"p", b""]
    assert [record.payload for record in log.read(0, 9, skip_kinds=(DECISION,))] == [b"p"]
    assert [record.offset for record in log.read(0, 1, skip_kinds=(EVENT,))] == [2]


async def test_same_id_is_stored_once_and_another_payload_is_a_conflict(log: EventLog) -> None:
    await log.append([event(1)], 0)
    again = [event(1), event(1, payload=b"other"), event(2), event(2), event(2, payload=b"other"), event(3)]
    assert await log.append(again, 1) == [DUPLICATE, CONFLICT, STORED, DUPLICATE, CONFLICT, STORED]
    assert [(record.record_id, record.payload) for record in log.read(0, 9)] == [
        ("e1", b"p"),
        ("e2", b"p"),
        ("e3", b"p"),
    ]


async def test_many_duplicates_in_one_batch_are_told_apart(log: EventLog) -> None:
    await log.append([event(number) for number in range(0, 3000, 2)], 0)
    statuses = await log.append([event(number) for number in range(3000)], 1)
    assert statuses == [DUPLICATE, STORED] * 1500


async def test_records_without_id_may_repeat(log: EventLog) -> None:
    document = NewRecord(ITEM, "", "", b"same")
    assert await log.append([document, document], 0) == [STORED, STORED]
    assert await log.append([document, event(1), event(1)], 0) == [STORED, STORED, DUPLICATE]


async def test_concurrent_calls_get_their_own_statuses(log: EventLog) -> None:
    results = await asyncio.gather(*(log.append([event(number), event(number)], 0) for number in range(50)))
    assert results == [[STORED, DUPLICATE]] * 50
    assert log.last_offset() == 50


async def test_empty_append_is_harmless(log: EventLog) -> None:
    assert await log.append([], 0) == []
    assert log.last_offset() == 0


async def test_hook_sees_the_commit_before_the_caller(log: EventLog) -> None:
    seen: list[tuple[int, int]] = []
    log.on_commit(lambda offset: seen.append((offset, len(log.read(0, 9)))))
    await log.append([event(1), event(2)], 0)
    assert seen == [(2, 2)]


async def test_later_records_are_stored_soon(log: EventLog) -> None:
    assert log.append_later([NewRecord(DECISION, "v", "r1", b"d")], 5)
    wait_until(lambda: log.last_offset() == 1)
    assert log.read(0, 9) == [LogRecord(1, DECISION, 5, "v", "r1", b"d")]
    assert log.dropped_count == 0


def test_import_answers_batch_by_batch(log: EventLog) -> None:
    batches = ([event(number) for number in range(start, start + 100)] for start in (0, 50, 200))
    counts = [statuses.count(STORED) for statuses in log.import_records(batches, 0)]
    assert counts == [100, 50, 100]


async def test_records_of_one_visitor(log: EventLog) -> None:
    await log.append([event(number, key=f"v{number % 2}") for number in range(2500)], 0)
    found = list(log.records_of("v1"))
    assert [record.record_id for record in found] == [f"e{number}" for number in range(1, 2500, 2)]
    assert list(log.records_of("")) == []


async def test_an_erasure_that_nobody_ended_is_ended(log: EventLog) -> None:
    await log.append([event(1), event(2, key="w"), NewRecord(ERASURE, "v", "", b""), event(3)], 0)
    assert [log.finish_erasures(), log.finish_erasures()] == [1, 0]
    assert [record.record_id for record in log.read(0, 10) if record.kind == EVENT] == ["e2", "e3"]


def seen(number: int, visitor_id: str, user_id: str = "") -> NewRecord:
    context = Context(visitor_id=visitor_id, user_id=user_id)
    return event(number, key=user_id or visitor_id, payload=Event(context=context).SerializeToString())


async def test_anonymous_ids_are_those_that_became_the_visitor(log: EventLog) -> None:
    logins = [seen(1, "phone", "ann"), seen(2, "", "bob"), seen(3, "bob", "ann"), seen(4, "ann", "ann")]
    await log.append([*logins, seen(5, "phone"), event(6, key="ann", payload=b"\xff"), seen(7, "carl")], 1)
    assert log.anonymous_ids("ann") == {"phone"}, "bob is a user"
    assert [log.anonymous_ids(other) for other in ("bob", "phone", "carl", "")] == [set()] * 4


async def test_erasure_deletes_what_came_before_it_and_stays(log: EventLog) -> None:
    await log.append(
        [
            event(1),
            NewRecord(PROFILE, "v", "", b"p"),
            NewRecord(DECISION, "v", "", b"d"),
            NewRecord(ITEM, "v", "", b"not theirs"),
            event(2, key="w"),
            NewRecord(ERASURE, "v", "", b"x"),
            event(3),
        ],
        0,
    )
    assert log.erase("v") == 3
    assert [record.offset for record in log.read(0, 9)] == [4, 5, 6, 7]
    assert log.erase("v") == 0
    assert await log.append([event(4)], 0) == [STORED]
    assert log.last_offset() == 8


async def test_erasure_that_comes_late_deletes_what_is_older(log: EventLog) -> None:
    for time_ms in (9, 11, 10):
        await log.append(
            [event(time_ms), NewRecord(PROFILE, "v", "", b"p"), NewRecord(DECISION, "v", "", b"d")], time_ms
        )
    await log.append([NewRecord(ERASURE, "v", "", b"x")], 10)
    await log.append([NewRecord(ERASURE, "v", "", b"x")], 8)
    assert log.erase("v") == 6
    assert [record.time_ms for record in log.read(0, 99)] == [11, 11, 11, 10, 8]


async def test_who_is_back_after_an_erasure_is_so_by_time_too_though_the_clock_went_back(log: EventLog) -> None:
    await log.append([NewRecord(ERASURE, "v", "", b"x"), NewRecord(ERASURE, "w", "", b"x")], 10)
    others = [event(3, key="u"), NewRecord(ITEM, "v", "", b"i"), NewRecord(DECISION, "v", "", b"d")]
    await log.append([event(1), NewRecord(PROFILE, "w", "", b"p"), *others, event(2, key="x")], 5)
    list(log.import_records([[event(4)]], 10))
    await log.append([event(5)], 12)
    assert [record.time_ms for record in log.read(2, 99)] == [11, 11, 5, 5, 5, 5, 11, 12]
    assert await log.append([event(1)], 4) == [DUPLICATE]


@pytest.mark.parametrize("kind", [DECISION, STATED])
async def test_erasure_deletes_what_was_queued_before_it_and_stored_after(log: EventLog, kind: int) -> None:
    await log.append([NewRecord(ERASURE, "v", "", b"x")], 10)
    for time_ms in (9, 11, 10):
        await log.append([NewRecord(kind, "v", "", b"d"), NewRecord(kind, "w", "", b"d"), event(time_ms)], time_ms)
    await log.append([NewRecord(kind, "v", "", b"d")], 9)
    assert log.erase("v") == 3
    kept = [(record.offset, record.kind, record.key) for record in log.read(0, 99)]
    events = [(4, EVENT, "v"), (7, EVENT, "v"), (10, EVENT, "v")]
    others = [(3, kind, "w"), (6, kind, "w"), (9, kind, "w")]
    assert kept == sorted([(1, ERASURE, "v"), *events, *others, (5, kind, "v"), (11, 0, "")])
    await log.append([event(99)], 12)
    assert log.last_offset() == 12


@pytest.mark.parametrize("kind", [DECISION, STATED])
async def test_what_waited_while_its_visitor_was_forgotten_is_left_out(log: EventLog, kind: int) -> None:
    await log.append([NewRecord(ERASURE, "v", "", b"x")], 10)
    for key, time_ms in (("v", 10), ("w", 9), ("v", 11)):
        assert log.append_later([NewRecord(kind, key, "", b"d")], time_ms)
    wait_until(lambda: log.last_offset() == 3)
    assert [(record.key, record.time_ms) for record in log.read(1, 9)] == [("w", 9), ("v", 11)]
    assert log.dropped_count == 0


async def test_erase_without_an_erasure_record_deletes_nothing(log: EventLog) -> None:
    await log.append([event(1)], 0)
    assert log.erase("v") == 0
    assert log.last_offset() == 1


def open_log(path: Path, **options: float) -> SqliteLog:
    return SqliteLog(path, **options)  # type: ignore[arg-type]


async def test_two_logs_share_a_file_without_gap_or_loss(tmp_path: Path) -> None:
    logs = [open_log(tmp_path / "log.sqlite") for _ in range(2)]
    jobs = [logs[number % 2].append([event(number), event(0)], 0) for number in range(1, 101)]
    statuses = await asyncio.gather(*jobs)
    assert [first for first, _ in statuses] == [STORED] * 100
    assert sorted(second for _, second in statuses) == [STORED] + [DUPLICATE] * 99
    assert [record.offset for record in logs[0].read(0, 1000)] == list(range(1, 102))
    for log in logs:
        log.close()


async def test_full_queue_refuses_and_counts(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite", queue_rows=2)
    decisions = [NewRecord(DECISION, "v", "", b"d")] * 3
    assert not log.append_later(decisions, 0)
    assert log.dropped_count == 3
    assert log.append_later(decisions[:2], 0)
    log.close()
    assert open_log(tmp_path / "log.sqlite").last_offset() == 2


async def test_large_records_come_in_several_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rows, "READ_BYTES", 100)
    log = open_log(tmp_path / "log.sqlite")
    await log.append([event(number, payload=b"p" * 60) for number in range(1500)], 0)
    assert [len(log.read(after, 9999)) for after in (0, 1000, 1500)] == [1000, 500, 0]
    assert len(list(log.records_of("v"))) == 1500
    log.close()


async def test_closed_log_refuses(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite")
    log.close()
    log.close()
    with pytest.raises(LogUnavailableError, match="closed"):
        await log.append([event(1)], 0)
    assert not log.append_later([event(1)], 0)


async def test_failing_hook_does_not_fail_the_append(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite")
    log.on_commit(lambda _: 1 // 0)
    assert await log.append([event(1)], 0) == [STORED]
    log.close()


async def test_cancelled_call_does_not_stop_the_writer(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite", commit_wait_ms=5)
    task = asyncio.ensure_future(log.append([event(1)], 0))
    await asyncio.sleep(0)
    task.cancel()
    assert await log.append([event(2)], 0) == [STORED]
    log.close()


async def test_full_disk_fails_the_call_and_the_log_recovers(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite")
    await log.append([event(1)], 0)
    assert log._connection is not None
    pages = log._connection.execute("PRAGMA page_count").fetchone()[0]
    log._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailableError, match="free space on the disk"):
        await log.append([event(number, payload=os.urandom(9000)) for number in range(2, 20)], 0)
    assert await log.append([event(2)], 0) == [STORED]
    assert log.last_offset() == 2
    log.close()


@pytest.mark.parametrize("content", [b"not a database " * 999, None])
def test_unusable_file_is_named_with_a_fix(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "log.sqlite"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(LogUnavailableError, match=rf"log {path} cannot be used \(.*\); \w+"):
        open_log(path)


async def test_damaged_file_fails_calls_and_not_the_process(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = open_log(path)
    await log.append([event(number) for number in range(5000)], 0)
    log.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\x5a" * (len(content) - 4096))
    log = open_log(path)
    with pytest.raises(LogUnavailableError, match="restore the file"):
        log.read(0, 10_000)
    with pytest.raises(LogUnavailableError, match="restore the file"):
        await log.append([event(9999)], 0)
    log.close()


def test_erased_bytes_leave_the_disk(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite")
    list(log.import_records([[event(1, payload=b"SECRET" * 10), NewRecord(ERASURE, "v", "", b"")]], 0))
    assert log.erase("v") == 1
    assert b"SECRET" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    log.close()


async def test_bytes_that_a_reader_keeps_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_log, "_OVERWRITE_WAIT_MS", 1)
    log = open_log(tmp_path / "log.sqlite")
    await log.append([event(1)], 0)
    reader = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchone()
    await log.append([NewRecord(ERASURE, "v", "", b"")], 0)
    with capture_logs() as lines:
        assert log.erase("v") == 1
        assert [line["event"] for line in lines] == ["erased_bytes_linger"]
        reader.close()
        log.erase("v")
    assert len(lines) == 1
    log.close()


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    log = open_log(tmp_path / "log.sqlite")
    await log.append([event(1)], 0)
    assert log._connection is not None
    assert log._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert sqlite3.connect(tmp_path / "log.sqlite").execute("PRAGMA journal_mode").fetchone() == ("wal",)
    log.close()


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_was_taken_away_takes_no_more_records(tmp_path: Path, *, is_replaced: bool) -> None:
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path)
    assert await log.append([event(1)], 0) == [STORED]
    for name in ("log.sqlite", "log.sqlite-wal", "log.sqlite-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    if is_replaced:
        SqliteLog(path).close()
    for number in (2, 3):
        with pytest.raises(LogUnavailableError, match=r"log\.sqlite cannot be used"):
            await log.append([event(number)], 0)
    log.close()
