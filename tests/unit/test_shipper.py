import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server import exchange, telemetry
from server.adapters.inbox import SqliteInbox
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.ports import ALL_KEPT, Arrival, Kept, LogRecord, NewRecord, StreamUnavailableError
from server.settings import Settings, load_settings
from server.workers import shipper as module
from server.workers.shipper import Shipper


class FrozenClock:
    def now_ms(self) -> int:
        return 10_000


class FakeStream:
    """Takes two records a round, after it failed `failures` times."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.records: list[LogRecord] = []

    def send(self, records: Sequence[LogRecord], origin: str) -> int:
        assert origin
        if self.failures:
            self.failures -= 1
            raise StreamUnavailableError("away")
        self.records += records[:2]
        return len(records[:2])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, {"data_dir": tmp_path, "kafka.keep_hours": 168})


@pytest.fixture
def outbox(settings: Settings) -> Iterator[SqliteOutbox]:
    log = SqliteLog(settings.log_path)
    for number in range(5):
        list(log.import_records([[NewRecord(1, "v", f"e{number}", b"pp")]], number * 1_000))
    log.close()
    outbox = SqliteOutbox(settings.log_path)
    yield outbox
    outbox.close()


class Waits(threading.Event):
    """Flag that keeps for how long it was waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout)
        return super().wait(timeout)


def test_rounds_follow_each_other(outbox: SqliteOutbox) -> None:
    stream = FakeStream()
    shipper = Shipper(outbox, stream, FrozenClock())
    assert [shipper.step() for _ in range(4)] == [2, 2, 1, 0]
    assert [record.offset for record in stream.records] == [1, 2, 3, 4, 5]
    assert outbox.shipped() == 5


def test_failed_rounds_are_told_measured_and_sent_again(outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", (0.011, 0.022))
    monkeypatch.setattr(module, "SIZE_S", 0.0)
    stopping, stream = Waits(), FakeStream(failures=3)
    before = telemetry.SHIP_RETRIES._value.get()
    with capture_logs() as lines:
        thread = threading.Thread(target=Shipper(outbox, stream, FrozenClock()).run, args=(stopping,))
        thread.start()
        while len(stream.records) < 5 or telemetry.OUTBOX_RECORDS._value.get():
            stopping.wait(0.01)
        stopping.set()
        thread.join(60)
    assert [line["event"] for line in lines] == ["not_shipped", "works_again"]
    assert [waited for waited in stopping.waited if waited in module.WAIT_S] == [0.011, 0.022, 0.022]
    assert telemetry.SHIP_RETRIES._value.get() - before == 3
    assert telemetry.OUTBOX_AGE_SECONDS._value.get() == 0


def test_what_waits_is_measured(outbox: SqliteOutbox) -> None:
    outbox.mark_shipped(2)
    Shipper(outbox, FakeStream(), FrozenClock())._measure()
    assert telemetry.OUTBOX_RECORDS._value.get() == 3
    assert telemetry.OUTBOX_BYTES._value.get() == 6
    assert telemetry.OUTBOX_AGE_SECONDS._value.get() == 8


def add_foreign(settings: Settings, numbers: range) -> None:
    inbox = SqliteInbox(settings.log_path)
    inbox.take([Arrival(LogRecord(0, 1, 0, "v", f"f{number}", b"p"), "other", number) for number in numbers], {})
    inbox.close()


def test_records_of_others_are_passed_once(
    outbox: SqliteOutbox, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROUND_RECORDS", 10)
    outbox.mark_shipped(5)
    stream, looked = FakeStream(), []
    read = outbox.read
    outbox.read = lambda after, limit: looked.append(after) or read(after, limit)  # type: ignore[method-assign,func-returns-value]
    shipper = Shipper(outbox, stream, FrozenClock(), lambda: Kept(99, range(99_000, 2**60)))
    for numbers in (range(9), range(9, 12)):
        add_foreign(settings, numbers)
        assert [shipper.step() for _ in range(2)] == [0, 0]
    assert looked == [5, 14, 14, 17]
    assert outbox.shipped() == 17, "on disk after a round's worth"
    shipper._measure()
    assert telemetry.OUTBOX_RECORDS._value.get() == 0
    shipper._trim()
    log = SqliteLog(settings.log_path)
    assert [record.offset for record in log.read(0, 99)] == [17]
    list(log.import_records([[NewRecord(1, "v", "mine", b"p")]], 9_000))
    log.close()
    assert [shipper.step(), shipper.step()] == [1, 0]
    assert [record.record_id for record in stream.records] == ["mine"]


def test_nothing_is_shipped_before_it_may(outbox: SqliteOutbox) -> None:
    stopping, may_ship, stream = threading.Event(), threading.Event(), FakeStream()
    shipper = Shipper(outbox, stream, FrozenClock(), may_ship=may_ship.is_set)
    thread = threading.Thread(target=shipper.run, args=(stopping,))
    thread.start()
    stopping.wait(0.2)
    assert stream.records == []
    outbox.mark_shipped(2)  # as a log does that goes on under a new name
    may_ship.set()
    while outbox.shipped() < 5:
        stopping.wait(0.01)
    stopping.set()
    thread.join(60)
    assert [record.offset for record in stream.records] == [3, 4, 5]


def test_log_is_trimmed_where_it_is_old_shipped_and_in_a_snapshot(outbox: SqliteOutbox, settings: Settings) -> None:
    def left() -> list[int]:
        Shipper(outbox, FakeStream(), FrozenClock(), lambda: exchange.kept(settings, now_ms))._trim()
        return [record.offset for record in outbox.read(0, 9)]

    now_ms = 168 * 3_600_000 + 3_500
    assert left() == [1, 2, 3, 4, 5], "no snapshot"
    settings.snapshot_dir.mkdir()
    (settings.snapshot_dir / f"{3:020d}.snapshot").touch()
    assert left() == [1, 2, 3, 4, 5], "not shipped"
    outbox.mark_shipped(2)
    assert left() == [3, 4, 5]
    outbox.mark_shipped(5)
    assert left() == [4, 5], "the snapshot has 3"
    (settings.snapshot_dir / f"{3:020d}.snapshot").unlink()
    (settings.snapshot_dir / f"{5:020d}.snapshot").touch()
    assert left() == [5], "4 is old"
    all_kept = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"keep_hours": 0})})
    assert exchange.kept(all_kept, now_ms) == ALL_KEPT
