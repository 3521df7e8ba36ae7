"""The memory view: an engine that follows the log, and its snapshots.

Records are applied in log order, and once more those that a late erasure leaves, so that two replicas with the same
offset are equal.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Final

import structlog

from core_rs import Engine, EngineError
from server import kinds
from server.lockfile import FileLock, LockHeldError
from server.ports import EventLog, LogRecord, LogUnavailableError
from server.settings import Settings
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_ACTIVATION,
    RECORD_KIND_DECISION,
    RECORD_KIND_ERASURE,
    RECORD_KIND_UNSPECIFIED,
)

CHUNK_ROWS: Final = 10_000
"""Records that are read and applied at once."""

KEEP_S: Final = 86_400
"""Seconds after which an older snapshot is removed, even where it is the only other one: it may know who was erased."""

_Row = tuple[int, int, int, bytes]

_logger = structlog.get_logger(__name__)


class Replica:
    """Engine that is kept up to date with the log.

    Parameters
    ----------
    engine : empty engine
    log : log to follow
    settings : folders, times and counts
    on_lag : told how many records were missing, each time the log was looked at
    before_activation : told of the record of an activation after the engine has all before it, and not yet it
    """

    def __init__(
        self,
        engine: Engine,
        log: EventLog,
        settings: Settings,
        on_lag: Callable[[int], None] = lambda _: None,
        before_activation: Callable[[LogRecord], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._log = log
        self._settings = settings
        self._on_lag = on_lag
        self._before_activation = before_activation
        self._following = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def restore(self, between: Callable[[], None] = lambda: None) -> int:
        """Return the offset reached by the newest good snapshot and all that the log holds after it.

        `between` is called after the snapshot and before the rest of the log.

        Raises
        ------
        LogUnavailableError : the log cannot be read, or lacks what is between the snapshot and its beginning
        """
        self._remove_partial()
        for path in reversed(self._snapshots()):
            if self._load(path):
                break
        self._need_whole_history()
        between()
        return self.follow()

    def start(self) -> None:
        """Follow what this process commits at once and what others write by looking for it; keep snapshots."""
        self._log.on_commit(lambda _: self.follow())
        for run in (self._poll, self._keep_snapshots):
            thread = threading.Thread(target=run, name=f"replica{run.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop following and save a snapshot."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self.save()

    def follow(self) -> int:
        """Apply all records the engine lacks; return its offset."""
        with self._following:
            end = self._log.last_offset()
            self._on_lag(max(0, end - self._engine.offset))
            while self._apply_chunk():
                pass
            if self._engine.offset < end:
                self._engine.apply([(end, RECORD_KIND_UNSPECIFIED, 0, b"")])
            return self._engine.offset

    def lag(self) -> int:
        """Return how many offsets the engine is behind the log."""
        return max(0, self._log.last_offset() - self._engine.offset)

    def save(self) -> Path | None:
        """Return the snapshot of the present state; None if it is empty or another process is saving one."""
        offset = self._engine.offset
        if not offset:
            return None
        try:
            with FileLock(self._settings.snapshot_dir / "lock"):
                path = self._path_of(offset)
                if not path.exists():
                    path = path.replace(self._path_of(self._engine.save_snapshot(str(path))))
                for old in self._snapshots()[: -self._settings.snapshot.keep]:
                    old.unlink()
                return path
        except LockHeldError:
            return None

    def remove_old(self) -> None:
        """Remove snapshots that are older than `KEEP_S`, but for the newest, and those that were set aside."""
        others = (*self._snapshots()[:-1], *self._settings.reject_dir.glob("*.snapshot"))
        for path in others:
            with suppress(FileNotFoundError):  # another process removes them too
                if time.time() - path.stat().st_mtime > KEEP_S:
                    path.unlink()

    def _apply_chunk(self) -> bool:
        records = self._log.read(self._engine.offset, CHUNK_ROWS, skip_kinds=(RECORD_KIND_DECISION,))
        waiting: list[_Row] = []
        for record in records:
            if record.kind == RECORD_KIND_ACTIVATION:
                self._apply(waiting)
                self._before_activation(record)
                waiting = []
            if record.kind == RECORD_KIND_ERASURE and any(since := self._since(record)):
                self._apply(waiting)
                self._engine.apply_late_erasure(_row(record), *since)
                waiting = []
            else:
                waiting.append(_row(record))
        self._apply(waiting)
        return bool(records)

    def _since(self, erasure: LogRecord) -> tuple[list[_Row], list[_Row]]:
        """Return what the log took of a visitor after its erasure and has before it: another machine told it late.

        The second list is of the user whose erasure it is part of, where the log has that of the user: before it has,
        there is nothing to mend, and once it is trimmed, so may be what came since.
        """
        user_id = kinds.erased_user(erasure.payload)
        of_user = self._before(erasure, user_id, erasure.time_ms - 1) if user_id else []
        is_known = any(record.kind == RECORD_KIND_ERASURE for record in of_user)
        return _acts(self._before(erasure, erasure.key, erasure.time_ms)), _acts(of_user) if is_known else []

    def _before(self, erasure: LogRecord, key: str, after_ms: int) -> list[LogRecord]:
        found = self._log.records_of(key, after_ms=after_ms)
        return list(takewhile(lambda record: record.offset < erasure.offset, found))

    def _apply(self, rows: list[_Row]) -> None:
        try:
            self._engine.apply(rows)
        except EngineError:
            self._apply_singly(rows)

    def _apply_singly(self, rows: list[_Row]) -> None:
        for row in rows:
            try:
                self._engine.apply([row])
            except EngineError:
                offset, kind, time_ms, _ = row
                _logger.exception("record_skipped", offset=offset, kind=kind)
                self._engine.apply([(offset, RECORD_KIND_UNSPECIFIED, time_ms, b"")])

    def _poll(self) -> None:
        while not self._stopping.wait(self._settings.log.poll_ms / 1000):
            try:
                if self.lag():
                    self.follow()
            except LogUnavailableError:
                _logger.exception("log_not_followed")
                self._stopping.wait(1)

    def _keep_snapshots(self) -> None:
        interval_s = self._settings.snapshot.interval_s
        while not self._stopping.wait(interval_s):
            try:
                newest = self._snapshots()[-1:]
                if not newest or abs(time.time() - newest[0].stat().st_mtime) >= interval_s / 2:
                    self.save()
                self.remove_old()
            except (OSError, EngineError):
                _logger.exception("snapshot_not_saved")

    def _remove_partial(self) -> None:
        """Remove what processes left that died while they saved."""
        with suppress(LockHeldError), FileLock(self._settings.snapshot_dir / "lock"):
            for path in self._settings.snapshot_dir.glob("*.partial"):
                path.unlink()

    def _load(self, path: Path) -> bool:
        if int(path.stem) > self._log.last_offset():
            self._set_aside(path, "it is ahead of the log, so it belongs to another one")
            return False
        try:
            offset = self._engine.load_snapshot(str(path))
        except (EngineError, OSError) as error:
            self._set_aside(path, str(error))
            return False
        _logger.info("snapshot_loaded", path=str(path), offset=offset)
        return True

    def _need_whole_history(self) -> None:
        if (begin := self._log.trimmed_offset()) > (reached := self._engine.offset):
            raise LogUnavailableError(
                f"log {self._settings.log_path} begins after offset {begin} and the newest good snapshot reaches "
                f"{reached}; put a snapshot back into {self._settings.snapshot_dir}, or move the log away, run "
                "`shopkeeper restore` and serve again"
            )

    def _set_aside(self, path: Path, reason: str) -> None:
        _logger.warning(
            "snapshot_set_aside", path=str(path), reason=reason, fix="none: an older one or the log is used"
        )
        self._settings.reject_dir.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.utime(path)  # it is kept for a day from now on
            path.replace(self._settings.reject_dir / path.name)

    def _snapshots(self) -> list[Path]:
        return sorted(self._settings.snapshot_dir.glob("*.snapshot"))

    def _path_of(self, offset: int) -> Path:
        return self._settings.snapshot_dir / f"{offset:020d}.snapshot"


def _row(record: LogRecord) -> _Row:
    return record.offset, record.kind, record.time_ms, record.payload


def _acts(records: list[LogRecord]) -> list[_Row]:
    return [_row(record) for record in records if record.kind in kinds.ERASED - {RECORD_KIND_DECISION}]
