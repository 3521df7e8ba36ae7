"""The process that brings this machine's log to Kafka, and what other machines wrote into this log."""

import signal
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Final

from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_stream import KafkaStream
from server.adapters.outbox import SqliteOutbox
from server.clock import clock_of
from server.lockfile import FileLock
from server.settings import Settings
from server.streams import FOLLOWED
from server.telemetry import configure_logging, serve_metrics
from server.workers.follower import Follower
from server.workers.shipper import Shipper

_HOUR_MS: Final = 3_600_000


def run_exchange(settings: Settings, ready: Callable[[str], object]) -> None:
    """Ship and follow until SIGTERM; `ready` is told when the log is open.

    Raises
    ------
    LockHeldError : another process does this for the same log
    """
    configure_logging(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    serve_metrics(settings, settings.listen.workers + 1)
    clock = clock_of(settings.clock)
    with FileLock(settings.data_dir / "exchange.lock"):
        follower = threading.Thread(target=_follow, args=(settings, stopping), name="follower")
        with closing(SqliteOutbox(settings.log_path)) as outbox, closing(KafkaStream(settings.kafka)) as stream:
            follower.start()
            ready("exchange")
            Shipper(outbox, stream, clock, lambda: kept_until(settings, clock.now_ms())).run(stopping)
        follower.join()


def kept_until(settings: Settings, now_ms: int) -> tuple[int, int]:
    """Return the offset that the oldest snapshot has, and the time from which on the log is kept, Unix milliseconds."""
    snapshots = sorted(settings.snapshot_dir.glob("*.snapshot"))
    if not (settings.kafka.keep_hours and snapshots):
        return 0, 0
    return int(snapshots[0].stem), now_ms - settings.kafka.keep_hours * _HOUR_MS


def _follow(settings: Settings, stopping: threading.Event) -> None:
    """Follow in a thread of its own, which owns its connection to the log."""
    with closing(KafkaFeed(settings.kafka, topics=FOLLOWED)) as feed, closing(SqliteInbox(settings.log_path)) as inbox:
        Follower(feed, inbox).run(stopping)
