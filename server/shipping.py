"""The process that brings this machine's log to Kafka."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

from server.adapters.kafka_stream import KafkaStream
from server.adapters.outbox import SqliteOutbox
from server.lockfile import FileLock
from server.settings import Settings
from server.telemetry import configure_logging, serve_metrics
from server.workers.shipper import Shipper

_HOUR_MS: Final = 3_600_000


def run_shipper(settings: Settings, ready: Callable[[str], object]) -> None:
    """Ship what this machine writes, until SIGTERM; `ready` is told when the outbox is open.

    Raises
    ------
    LockHeldError : another process ships the same log
    """
    configure_logging(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    serve_metrics(settings, settings.listen.workers + 1)
    with (
        FileLock(settings.data_dir / "shipper.lock"),
        closing(SqliteOutbox(settings.log_path)) as outbox,
        closing(KafkaStream(settings.kafka)) as stream,
    ):
        ready("shipper")
        Shipper(outbox, stream, lambda: kept_until(settings)).run(stopping)


def kept_until(settings: Settings) -> tuple[int, int]:
    """Return the offset that the oldest snapshot has, and the time from which on the log is kept, Unix ms."""
    snapshots = sorted(settings.snapshot_dir.glob("*.snapshot"))
    if not (settings.kafka.keep_hours and snapshots):
        return 0, 0
    return int(snapshots[0].stem), time.time_ns() // 1_000_000 - settings.kafka.keep_hours * _HOUR_MS
