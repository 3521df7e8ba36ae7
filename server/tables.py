"""The table view as processes use it: the sink's own process, and exports for trainers."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from server.adapters.chdb_store import ChdbStore
from server.adapters.sqlite_log import open_log
from server.ports import StoreBusyError, StoreError
from server.settings import Settings
from server.telemetry import configure_logging
from server.workers.exports import answer_to, answer_wants, make_export
from server.workers.sink import Sink

_POLL_S: Final = 0.1
_BUSY_S: Final = 30.0
"""Seconds the sink waits for an export that another process is making; a second server's sink gives up after them."""

_logger = structlog.get_logger(__name__)


def open_store(settings: Settings) -> ChdbStore:
    """Return the tables of the deployment, up to date; this process then owns them.

    Raises
    ------
    StoreBusyError : another process owns them
    """
    store = ChdbStore(
        settings.store_dir, consent_default=settings.privacy.consent_default, time_zone=settings.time_zone
    )
    try:
        store.migrate()
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
    with closing(open_log(settings)) as log, closing(_await_store(settings, stopping)) as store:
        sink = Sink(log, store, settings.sink)
        ready("sink")
        sink.run(stopping, lambda: answer_wants(sink, store, settings.export_dir))


def request_export(settings: Settings, timeout_s: float) -> Path:
    """Return a new folder with all that the log holds: made here if no process owns the tables, else by their owner.

    Raises
    ------
    StoreError : it could not be made, or not in time
    """
    want = settings.export_dir / f"{time.time_ns() // 1_000_000}-{uuid4().hex[:8]}.want"
    deadline = time.monotonic() + timeout_s
    asked = False
    try:
        while True:
            try:
                return answer_to(want) or _export(settings, want.with_suffix(""))
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


def _await_store(settings: Settings, stopping: threading.Event) -> ChdbStore:
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            return open_store(settings)
        except StoreBusyError as busy:
            _logger.warning("tables_busy", reason=str(busy))
            if time.monotonic() > deadline or stopping.wait(1.0):
                raise


def _export(settings: Settings, folder: Path) -> Path:
    with closing(open_store(settings)) as store, closing(open_log(settings)) as log:
        return make_export(Sink(log, store, settings.sink), store, folder)
