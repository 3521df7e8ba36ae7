"""`shopkeeper restore`: the log of a new machine, begun with what Kafka keeps no longer."""

import os
import shutil
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.table import Table

from server.adapters import log_erasure
from server.adapters.inbox import SqliteInbox
from server.adapters.kafka import topic_name
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.log_rows import last_offset, translated
from server.adapters.sqlite_log import connect, open_log, turn
from server.cli.deployment import ConfigOption, DataDirOption, settings_of
from server.cli.output import CliError, Exit, JsonFlag, handled, note, result
from server.lockfile import FileLock, LockHeldError
from server.settings import Settings
from server.tables import open_store
from server.workers.follower import Follower
from server.workers.restore import DUMPS, arrivals_of
from shopkeeper.v1.record_pb2 import RecordKind

PATIENCE_S: Final = 60.0
"""Seconds without a record of the catalogue after which a restoration fails."""
_GROUP: Final = 20_000
_PREFIX: Final = ".restore-"
"""Of the folder in which a log is made, beside the one whose place it takes."""


@handled
def restore(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonFlag = False) -> None:
    """Begin the log of a new machine with what the tables hold and Kafka keeps no longer.

    A machine that starts without it learns only what Kafka still has. To be run before the first `shopkeeper serve`,
    which then goes on with what Kafka has.
    """
    settings = settings_of(config, data_dir)
    if not settings.tables_follow_kafka:
        raise CliError(
            "There is nothing to restore from.",
            why="the log of a machine is whole unless its tables follow Kafka",
            then="set kafka.servers and clickhouse.server; without them, restore log.sqlite from a backup",
            code=Exit.CONFIG,
        )
    with _unserved(settings.data_dir):
        with closing(open_log(settings)) as log:
            _check_empty(settings, log.last_offset())
        counts = _fill(settings)
    table = Table("records")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name, f"{count:,}")
    result({"records": counts}, table, as_json=json)
    note("next: shopkeeper serve")


def _unserved(data_dir: Path) -> FileLock:
    try:
        return FileLock(data_dir / "serve.lock")
    except LockHeldError as held:
        raise CliError(
            "The log is in use.",
            why=f"{data_dir} is served by process {held.owner}",
            then="stop it, or name another folder with `--data-dir`",
        ) from None


def _check_empty(settings: Settings, end: int) -> None:
    if end:
        raise CliError(
            f"The log at {settings.log_path} is not empty.",
            why=f"its last offset is {end:,}; what is old would come after what is new",
            then="name another folder with `--data-dir`, or move this one away",
        )


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    """Give a log that nobody else has open, all of it in one file."""
    with translated(path), closing(connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
        yield connection


def _move(made: Path, settings: Settings) -> None:
    """Put a log that was made into the place of the empty one.

    Raises
    ------
    LogUnavailableError : the disk is full, or another process has the empty one open
    """
    with turn(settings.log_path):
        with _alone(settings.log_path) as empty:
            _check_empty(settings, last_offset(empty))
        with _alone(made) as log:
            log_erasure.keep_lost(log, last_offset(log))  # the tables have the newest of each visitor
            made.replace(settings.log_path)
    folder = os.open(settings.data_dir, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take_first(settings: Settings, inbox: SqliteInbox) -> None:
    """Take over the catalogue, for an event counts for the category of its item."""
    with closing(KafkaFeed(settings.kafka, topics=("items",))) as feed:
        Follower(feed, inbox).catch_up(threading.Event(), PATIENCE_S)


def _fill(settings: Settings) -> dict[str, int]:
    """Put a log with all there is in the place of the empty one; return how many records of each kind it has."""
    counts: Counter[int] = Counter()
    for left in settings.data_dir.glob(f"{_PREFIX}*"):  # by one that was killed
        shutil.rmtree(left)
    with TemporaryDirectory(dir=settings.data_dir, prefix=_PREFIX) as name:
        folder = Path(name)
        with closing(open_store(settings)) as store:
            for dump, select in DUMPS.items():
                store.write(folder / f"{dump}.parquet", select)
        with closing(KafkaFeed(settings.kafka, topics=("events",))) as feed:
            feed.begin(dict)
            begins = feed.begins()
            places = {f"{topic_name(settings.kafka, name)}/{part}": begin - 1 for (name, part), begin in begins.items()}
        path = folder / settings.log_path.name
        with closing(SqliteInbox(path)) as inbox:
            _take_first(settings, inbox)
            waiting = arrivals_of(folder, begins)
            while group := list(islice(waiting, _GROUP)):
                inbox.take(group, {})
                counts.update(one.record.kind for one in group)
            inbox.take([], places)  # what Kafka ends before the first `serve` is then missed, and counted
        _move(path, settings)
    return {
        name.removeprefix("RECORD_KIND_").lower(): counts[kind] for name, kind in RecordKind.items() if counts[kind]
    }
