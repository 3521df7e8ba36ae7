import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from core_rs import CorruptError, Engine, EngineError
from server.adapters.memory_log import MemoryLog
from server.lockfile import FileLock
from server.ports import NewRecord
from server.settings import Settings, load_settings
from server.workers import replica as module
from server.workers.replica import Replica
from tests.table_shop import wait_until

EVENT, DECISION, ACTIVATION = 1, 2, 7


class FakeEngine:
    """State is the list of payloads; a payload of `poison` cannot be applied."""

    def __init__(self) -> None:
        self.offset = 0
        self.state: list[str] = []

    def apply(self, records: Sequence[tuple[int, int, int, bytes]]) -> int:
        for offset, _, _, payload in records:
            if offset <= self.offset:
                continue
            if payload == b"poison":
                raise EngineError("cannot be read")
            self.offset = offset
            self.state += [payload.decode()] if payload else []
        return len(records)

    def save_snapshot(self, path: str) -> int:
        Path(path).write_text(json.dumps([self.offset, self.state]))
        return self.offset

    def load_snapshot(self, path: str) -> int:
        try:
            self.offset, self.state = json.loads(Path(path).read_text())
        except ValueError as error:
            raise CorruptError("checksum") from error
        return self.offset


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, {"data_dir": tmp_path, "log.poll_ms": 1})


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def replica(engine: FakeEngine, log: MemoryLog, settings: Settings) -> Iterator[Replica]:
    replica = replica_of(engine, log, settings)
    yield replica
    replica.stop()


def replica_of(
    engine: FakeEngine, log: MemoryLog, settings: Settings, on_lag: Callable[[int], None] = lambda _: None
) -> Replica:
    return Replica(cast("Engine", engine), log, settings, on_lag)


def add(log: MemoryLog, *payloads: str, kind: int = EVENT) -> None:
    log.append_later([NewRecord(kind, "v", "", payload.encode()) for payload in payloads], 0)


def saved(settings: Settings) -> list[int]:
    return sorted(int(path.stem) for path in settings.snapshot_dir.glob("*.snapshot"))


def test_empty_replica_catches_up_from_the_log(
    replica: Replica, engine: FakeEngine, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    add(log, *"abcde")
    assert replica.restore() == 5
    assert engine.state == list("abcde")


def test_decisions_advance_the_offset_and_nothing_else(replica: Replica, engine: FakeEngine, log: MemoryLog) -> None:
    add(log, "a")
    add(log, "shown", kind=DECISION)
    assert replica.restore() == 2
    assert engine.state == ["a"]


def test_commit_is_applied_before_its_caller_goes_on(replica: Replica, engine: FakeEngine, log: MemoryLog) -> None:
    replica.start()
    add(log, "a")
    assert engine.state == ["a"]


def test_records_of_other_processes_are_found(replica: Replica, engine: FakeEngine, log: MemoryLog) -> None:
    replica.start()
    log._hooks.clear()
    add(log, "a")
    wait_until(lambda: engine.state == ["a"])


def test_restart_goes_on_from_the_snapshot(
    replica: Replica, engine: FakeEngine, log: MemoryLog, settings: Settings
) -> None:
    add(log, "a", "b")
    replica.restore()
    engine.state = ["from snapshot"]
    replica.stop()
    add(log, "c")
    again = FakeEngine()
    assert replica_of(again, log, settings).restore() == 3
    assert again.state == ["from snapshot", "c"]


def test_damaged_snapshot_is_set_aside_and_the_older_used(
    replica: Replica, engine: FakeEngine, log: MemoryLog, settings: Settings
) -> None:
    for payload in "ab":
        add(log, payload)
        replica.follow()
        replica.save()
    (settings.snapshot_dir / f"{2:020d}.snapshot").write_text("half a sn")
    again = FakeEngine()
    with capture_logs() as lines:
        assert replica_of(again, log, settings).restore() == 2
    assert [line["event"] for line in lines] == ["snapshot_set_aside", "snapshot_loaded"]
    assert again.state == engine.state == ["a", "b"]
    assert saved(settings) == [1]
    assert [path.name for path in settings.reject_dir.iterdir()] == [f"{2:020d}.snapshot"]


def test_snapshot_of_another_log_is_set_aside(log: MemoryLog, engine: FakeEngine, settings: Settings) -> None:
    settings.snapshot_dir.mkdir()
    (settings.snapshot_dir / f"{9:020d}.snapshot").write_text('[9, ["x"]]')
    add(log, "a")
    assert replica_of(engine, log, settings).restore() == 1
    assert engine.state == ["a"]


def test_newest_snapshots_are_kept(replica: Replica, log: MemoryLog, settings: Settings) -> None:
    for payload in "abcd":
        add(log, payload)
        replica.follow()
        replica.save()
    assert saved(settings) == [3, 4]


def test_old_snapshots_end_though_no_newer_comes(replica: Replica, log: MemoryLog, settings: Settings) -> None:
    paths = []
    for payload in (b"a", b"b"):
        log.append_later([NewRecord(EVENT, "v", "", payload)], 0)
        replica.follow()
        paths.append(replica.save())
    settings.reject_dir.mkdir()
    rejected = settings.reject_dir / "7.snapshot"
    rejected.touch()
    replica.remove_old()
    assert all(path and path.exists() for path in (*paths, rejected))
    for path in (*paths, rejected):
        os.utime(path, (0, time.time() - module.KEEP_S - 9))
    replica.remove_old()
    assert [path and path.exists() for path in (*paths, rejected)] == [False, True, False]


def test_snapshots_come_by_interval(tmp_path: Path, engine: FakeEngine, log: MemoryLog) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "snapshot.interval_s": 0.01})
    replica = replica_of(engine, log, settings)
    replica.start()
    add(log, "a")
    wait_until(lambda: saved(settings) == [1])
    replica.stop()


def test_snapshots_go_on_when_one_vanishes(
    tmp_path: Path, engine: FakeEngine, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "snapshot.interval_s": 0.01})
    replica = replica_of(engine, log, settings)
    snapshots, vanished = replica._snapshots, [tmp_path / "gone.snapshot"]
    monkeypatch.setattr(replica, "_snapshots", lambda: [vanished.pop()] if vanished else snapshots())
    replica.start()
    add(log, "a")
    wait_until(lambda: saved(settings) == [1])
    replica.stop()


def test_half_a_snapshot_of_a_dead_process_is_removed_unless_one_is_saving(
    replica: Replica, settings: Settings
) -> None:
    settings.snapshot_dir.mkdir()
    partial = settings.snapshot_dir / f"{7:020d}.snapshot.partial"
    partial.touch()
    with FileLock(settings.snapshot_dir / "lock"):
        replica.restore()
        assert partial.exists()
    replica.restore()
    assert not partial.exists()


def test_empty_state_is_not_saved(replica: Replica) -> None:
    assert replica.save() is None


def test_poison_record_is_skipped_and_named(replica: Replica, engine: FakeEngine, log: MemoryLog) -> None:
    add(log, "a", "poison", "b")
    with capture_logs() as lines:
        assert replica.restore() == 3
    assert engine.state == ["a", "b"]
    assert [(line["event"], line["offset"]) for line in lines] == [("record_skipped", 2)]


def test_lag_is_told(engine: FakeEngine, log: MemoryLog, settings: Settings) -> None:
    lags: list[int] = []
    replica = replica_of(engine, log, settings, lags.append)
    add(log, "a", "b")
    assert replica.lag() == 2
    replica.follow()
    assert lags[0] == 2
    assert replica.lag() == 0


def test_two_threads_that_follow_apply_each_record_once(replica: Replica, engine: FakeEngine, log: MemoryLog) -> None:
    add(log, *map(str, range(5000)))
    threads = [threading.Thread(target=replica.follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.state == list(map(str, range(5000)))


def test_activation_is_announced_between_its_neighbours(engine: FakeEngine, log: MemoryLog, settings: Settings) -> None:
    told: list[tuple[bytes, list[str]]] = []
    replica = Replica(
        cast("Engine", engine),
        log,
        settings,
        before_activation=lambda record: told.append((record.payload, list(engine.state))),
    )
    add(log, "a")
    add(log, "v1", "v2", kind=ACTIVATION)
    add(log, "b")
    replica.follow()
    assert told == [(b"v1", ["a"]), (b"v2", ["a", "v1"])]
    assert engine.state == ["a", "v1", "v2", "b"]
