"""The process that brings this machine's log to Kafka, and what other machines wrote into this log."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import structlog

from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_stream import KafkaStream
from server.adapters.kafka_topics import DIFFERENCE_FIX, differences
from server.adapters.outbox import SqliteOutbox
from server.clock import clock_of
from server.lockfile import FileLock
from server.ports import ALL_KEPT, Kept
from server.settings import KafkaSettings, Settings
from server.streams import FOLLOWED
from server.telemetry import configure_logging, serve_metrics
from server.workers.follower import Follower
from server.workers.shipper import Shipper

_HOUR_MS: Final = 3_600_000
_AHEAD_MS: Final = 24 * _HOUR_MS
"""By as much a clock may be ahead, and what it took is kept as long as the rest."""

_logger = structlog.get_logger(__name__)


def run_exchange(settings: Settings, ready: Callable[[str], object]) -> None:
    """Ship and follow until SIGTERM; `ready` is told when the log is open.

    What fails in the one ends the other too, so that the supervisor starts both again.

    Raises
    ------
    LockHeldError : another process does this for the same log
    LogWentBackError : the log is an older copy, which the next start can go on with
    """
    configure_logging(settings.log_level)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    serve_metrics(settings, settings.listen.workers + 1)
    clock = clock_of(settings.clock)
    caught_up = threading.Event()
    with (
        FileLock(settings.data_dir / "exchange.lock"),
        closing(SqliteOutbox(settings.log_path)) as outbox,
        closing(KafkaStream(settings.kafka)) as stream,
        ThreadPoolExecutor(1, "follower") as pool,
    ):
        _remove_snapshots_ahead(settings.snapshot_dir, outbox.last_offset())
        following = pool.submit(_follow, settings, stopping, caught_up)
        following.add_done_callback(lambda _: stopping.set())
        ready("exchange")
        try:
            Shipper(outbox, stream, clock, lambda: kept(settings, clock.now_ms()), caught_up.is_set).run(stopping)
        finally:
            stopping.set()
        following.result()


def kept(settings: Settings, now_ms: int) -> Kept:
    """Return what stays in the log: what the oldest snapshot lacks, and what is younger than the settings say."""
    snapshots = sorted(settings.snapshot_dir.glob("*.snapshot"))
    if not (settings.kafka.keep_hours and snapshots):
        return ALL_KEPT
    return Kept(int(snapshots[0].stem), range(now_ms - settings.kafka.keep_hours * _HOUR_MS, now_ms + _AHEAD_MS))


def _remove_snapshots_ahead(folder: Path, last_offset: int) -> None:
    """Remove snapshots of a log that went back, before what comes in makes it look long enough for them."""
    for path in folder.glob("*.snapshot"):
        if int(path.stem) > last_offset:
            path.unlink(missing_ok=True)
            _logger.warning("snapshot_removed", path=str(path), fix="none: it is ahead of the log, so of another one")


def _follow(settings: Settings, stopping: threading.Event, caught_up: threading.Event) -> None:
    """Follow in a thread of its own, which owns its connection to the log."""
    with (
        closing(SqliteInbox(settings.log_path)) as inbox,
        closing(KafkaFeed(settings.kafka, topics=FOLLOWED)) as feed,
    ):
        follower = Follower(feed, inbox)
        follower.catch_up(stopping)
        caught_up.set()
        threading.Thread(target=_tell_differences, args=(settings.kafka,), daemon=True).start()
        follower.run(stopping)


def _tell_differences(settings: KafkaSettings) -> None:
    """Log where topics keep records otherwise than set: `EraseUser` promises what the settings say."""
    with suppress(Exception):  # whatever hinders it, `doctor` says why, and the exchange goes on
        for one in differences(settings):
            _logger.warning("topic_differs", **one._asdict(), fix=DIFFERENCE_FIX)
