"""Bytes of the log's file change behind its back: what is read is what was written, or nothing is."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core_rs import Engine
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog, open_log
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
    with closing(SqliteOutbox(settings.log_path)) as outbox, pytest.raises(LogUnavailableError, match=FIX):
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


NOT_WRITTEN = "record 7 is not what was written"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("payload = 'text'", NOT_WRITTEN),
        ("payload = CAST(payload AS TEXT)", r"Could not decode to UTF-8 column 'payload'\)"),
        ("key = 'v9'", NOT_WRITTEN),
        ("time_ms = time_ms + 1", NOT_WRITTEN),
    ],
)
def test_a_record_that_became_another_is_not_read(tmp_path: Path, sound: bytes, damage: str, said: str) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    write(settings, sound)
    with closing(sqlite3.connect(settings.log_path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'records'")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute(f'UPDATE records SET {damage} WHERE "offset" = 7')  # noqa: S608
    with pytest.raises(LogUnavailableError, match=f"{said}.*{FIX}"):
        state(settings)
    with (
        closing(SqliteOutbox(settings.log_path)) as outbox,
        pytest.raises(LogUnavailableError, match=f"{said}.*{FIX}"),
    ):
        outbox.read(0, EVENTS)
    with closing(open_log(settings)) as log, pytest.raises(LogUnavailableError, match=FIX):
        _ = [log.anonymous_ids(key) for key in ("v6", "v9")]


def test_a_log_that_was_dumped_and_read_back_keeps_its_checksums(tmp_path: Path, sound: bytes) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    write(settings, sound)
    true_state = state(settings)
    with closing(sqlite3.connect(settings.log_path)) as old:
        dump = list(old.iterdump())
    write(settings, b"")
    with closing(sqlite3.connect(settings.log_path)) as new:
        new.executescript("\n".join(dump))
    assert state(settings) == true_state


def test_a_record_that_an_earlier_version_emptied_is_read(tmp_path: Path, sound: bytes) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    write(settings, sound)
    with closing(sqlite3.connect(settings.log_path, isolation_level=None)) as connection:
        blank = "kind = 0, time_ms = 0, key = '', record_id = '', payload = x''"
        connection.execute(f'UPDATE records SET {blank} WHERE "offset" = (SELECT max("offset") FROM records)')  # noqa: S608
    assert state(settings)
