"""Bytes of the log's file change behind its back: what is read is what was written, or nothing is."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core_rs import Engine
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.ports import LogUnavailableError
from server.settings import Settings
from server.workers.replica import Replica
from tests.table_shop import event

EVENTS = 1_000
FIX = "restore the file from a backup"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a log."""
    path = tmp_path_factory.mktemp("sound") / "log.sqlite"
    with closing(SqliteLog(path)) as log:
        list(log.import_records([[event(f"e{n}", f"i{n % 9}", visitor_id=f"v{n % 7}") for n in range(EVENTS)]], 1_000))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def state(settings: Settings) -> bytes:
    engine = Engine()
    with closing(SqliteLog(settings.log_path)) as log:
        Replica(engine, log, settings).restore()
    path = settings.data_dir / "state"
    engine.save_snapshot(str(path))
    return path.read_bytes()


def write(settings: Settings, content: bytes) -> None:
    for path in settings.data_dir.glob("log.sqlite*"):
        path.unlink()
    settings.data_dir.mkdir(exist_ok=True)
    settings.log_path.write_bytes(content)


@pytest.mark.parametrize("size", [1, 16, 512])
def test_damage_is_found_out_or_does_not_matter(tmp_path: Path, sound: bytes, size: int) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    write(settings, sound)
    true_state, refused = state(settings), 0
    chance = random.Random(size)
    for _ in range(30):
        place = chance.randrange(len(sound) - size)
        write(settings, sound[:place] + chance.randbytes(size) + sound[place + size :])
        try:
            found = state(settings)
        except LogUnavailableError:
            refused += 1
        else:
            assert found == true_state
    assert refused > 5


def test_damaged_record_is_neither_served_nor_shipped(tmp_path: Path, sound: bytes) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    write(settings, sound.replace(event("e500", "i5", visitor_id="v3", time_ms=5).payload[:6], b"\n\x04e50x"))
    with pytest.raises(LogUnavailableError, match=FIX):
        state(settings)
    with closing(SqliteOutbox(settings.log_path)) as outbox, pytest.raises(LogUnavailableError, match="cannot be used"):
        outbox.read(0, EVENTS)


def test_log_that_was_begun_without_checksums_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("""
        CREATE TABLE records ("offset" INTEGER PRIMARY KEY, kind INTEGER NOT NULL, time_ms INTEGER NOT NULL,
            key TEXT NOT NULL, record_id TEXT NOT NULL, payload BLOB NOT NULL) STRICT;
        INSERT INTO records VALUES (1, 1, 7, 'v', 'e1', x'01');
        """)
    for _ in range(2):
        with closing(SqliteLog(path)) as log:
            list(log.import_records([[event("e2", "a")]], 8))
            assert [(record.offset, record.record_id) for record in log.read(0, 9)] == [(1, "e1"), (2, "e2")]
