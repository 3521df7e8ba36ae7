"""Snapshots are cut, flipped, emptied: pages stay what they were, or the server refuses to start; it never guesses."""

import os
import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core_rs import Engine
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.ports import Kept, LogUnavailableError
from server.settings import Settings
from server.telemetry import LOST_OFFSETS
from server.workers.log_feed import LogFeed
from server.workers.replica import Replica
from tests.shop_process import ShopProcess
from tests.table_shop import event

EVENTS = 200
START_FAILED = 78


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
def state(settings: Settings) -> bytes:
    """Return the bytes of the state of a log of which there are two snapshots."""
    with closing(SqliteLog(settings.log_path)) as log:
        replica = Replica(Engine(), log, settings)
        for half in (range(EVENTS // 2), range(EVENTS // 2, EVENTS)):
            list(log.import_records([[event(f"e{n}", f"i{n % 9}", visitor_id=f"v{n % 7}") for n in half]], 1_000))
            replica.follow()
            path = replica.save()
        assert path is not None
        return path.read_bytes()


def restored(settings: Settings) -> bytes:
    """Return the bytes of the state that a start finds."""
    engine = Engine()
    with closing(SqliteLog(settings.log_path)) as log:
        Replica(engine, log, settings).restore()
    path = settings.data_dir / "again"
    assert engine.save_snapshot(str(path)) == EVENTS
    return path.read_bytes()


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def flip(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]


def empty(_content: bytes, _chance: random.Random) -> bytes:
    return b""


def damage(settings: Settings, count: int, how: Callable[[bytes, random.Random], bytes], seed: int) -> None:
    """Damage the newest snapshots."""
    chance = random.Random(seed)
    for path in sorted(settings.snapshot_dir.glob("*.snapshot"))[-count:]:
        path.write_bytes(how(path.read_bytes(), chance))


def trim(settings: Settings, until: int) -> None:
    """Remove the beginning of the log, as the exchange does with what Kafka and a snapshot have."""
    with closing(SqliteOutbox(settings.log_path)) as outbox:
        assert outbox.trim(Kept(2**60, range(2_000, 2**60)), until) == until


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("how", [cut, flip, empty])
def test_damaged_snapshots_change_nothing(
    settings: Settings, state: bytes, how: Callable[[bytes, random.Random], bytes], count: int, seed: int
) -> None:
    damage(settings, count, how, seed)
    assert restored(settings) == state
    assert len(list(settings.reject_dir.iterdir())) == count
    assert restored(settings) == state


def test_log_that_was_trimmed_needs_one_good_snapshot(settings: Settings, state: bytes) -> None:
    trim(settings, EVENTS // 2)
    assert restored(settings) == state
    damage(settings, 1, flip, 1)
    assert restored(settings) == state
    damage(settings, 1, flip, 1)
    with pytest.raises(LogUnavailableError, match=rf"begins after offset {EVENTS // 2} .* reaches 0; put a snapshot"):
        restored(settings)


def test_log_that_was_trimmed_beyond_its_snapshot_is_refused(settings: Settings, state: bytes) -> None:
    assert state
    trim(settings, EVENTS // 2 + 1)
    damage(settings, 1, cut, 1)
    with pytest.raises(LogUnavailableError, match=f"begins after offset {EVENTS // 2 + 1} .* reaches {EVENTS // 2};"):
        restored(settings)


def test_snapshot_that_was_set_aside_is_kept_a_day_from_then(settings: Settings, state: bytes) -> None:
    assert state
    damage(settings, 1, flip, 1)
    for path in settings.snapshot_dir.iterdir():
        os.utime(path, (0, 0))
    with closing(SqliteLog(settings.log_path)) as log:
        replica = Replica(Engine(), log, settings)
        replica.restore()
        replica.remove_old()
    assert len(list(settings.reject_dir.iterdir())) == 1


def test_tables_that_a_trimmed_log_left_behind_are_told(settings: Settings, state: bytes) -> None:
    assert state
    trim(settings, EVENTS // 2)
    before = LOST_OFFSETS._value.get()
    with closing(SqliteLog(settings.log_path)) as log, capture_logs() as lines:
        feeds = [LogFeed(log), LogFeed(log)]
        for feed, offset in zip(feeds, (EVENTS // 2, 10), strict=True):
            feed.begin(lambda offset=offset: {"log": offset})
        assert feeds[0].read(1).records[0].offset == EVENTS // 2 + 1
        assert lines == []
        assert [feeds[1].read(1).records[0].offset for _ in range(2)] == [EVENTS // 2 + 1, EVENTS // 2 + 2]
    assert [(line["event"], line["offsets"]) for line in lines] == [("records_gone", EVENTS // 2 - 10)]
    assert LOST_OFFSETS._value.get() - before == EVENTS // 2 - 10


def test_server_refuses_to_start_from_half_a_history(settings: Settings, state: bytes) -> None:
    assert state
    trim(settings, EVENTS // 2)
    damage(settings, 2, flip, 1)
    with ShopProcess(settings.data_dir) as shop:
        assert shop.wait() == START_FAILED
    told = (settings.data_dir.parent / "server.log").read_text(encoding="utf-8")
    assert f"log {settings.log_path} begins after offset {EVENTS // 2}" in told
    assert "shopkeeper restore" in told
