"""ClickHouse is absent, goes away, hangs, is slow, full or refuses: every row comes into the tables once."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from server.ports import StoreError, StoreUnavailableError
from server.settings import SinkSettings
from server.telemetry import SINK_RETRIES
from server.workers import sink as sinking
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from tests.running import running
from tests.servers import ClickHouseServer
from tests.small_disk import fill, small_disk
from tests.table_shop import Shop, clickhouse_store, event, wait_until

ANSWER_S = 2.0
"""For which an impatient sink waits; a slow insert takes longer."""


@pytest.fixture
def shop(clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(sinking, "RETRY_S", 0.1)
    shop = Shop(clickhouse_store(clickhouse.address))
    yield shop
    shop.store.close()


def fast_sink(shop: Shop, batch_rows: int = 200) -> Sink:
    shop.sink._settings = SinkSettings(batch_rows=batch_rows, batch_ms=1)
    return shop.sink


def add_rows(shop: Shop, numbers: Sequence[int]) -> None:
    shop.add(*(event(f"e{number}", "a", visitor_id=f"v{number % 50}") for number in numbers))


def is_done(shop: Shop) -> bool:
    return shop.sink._feed.lag() == 0 and shop.sink._batch is None


def refusals() -> float:
    return float(SINK_RETRIES.labels("tables")._value.get())


def assert_stored_once(shop: Shop, count: int) -> None:
    """Check that all that was sent is in the tables once and that the server's fault set nothing aside."""
    assert Counter(name for (name,) in shop.rows("SELECT event_id FROM events FINAL")) == Counter(
        f"e{number}" for number in range(count)
    )
    assert shop.offset() == count
    assert shop.rows("SELECT count() FROM bad_events") == [(0,)]


def test_clickhouse_that_is_killed_mid_insert_gets_every_row_once(clickhouse: ClickHouseServer, shop: Shop) -> None:
    with running(fast_sink(shop)):
        for round_number in range(3):
            begin = round_number * 2_000
            add_rows(shop, range(begin, begin + 2_000))
            time.sleep(0.3)
            clickhouse.kill()
            time.sleep(0.3)
            clickhouse.start()
        wait_until(lambda: is_done(shop))
    assert_stored_once(shop, 6_000)


@contextmanager
def impatient(shop: Shop, clickhouse: ClickHouseServer) -> Iterator[Sink]:
    """Give a sink of the same tables that soon gives up on an answer."""
    database = shop.store._settings.database  # type: ignore[attr-defined]
    with closing(clickhouse_store(clickhouse.address, database=database, answer_s=ANSWER_S)) as store:
        shop.sink = Sink(LogFeed(shop.log), store, SinkSettings())
        yield fast_sink(shop)


def test_clickhouse_that_hangs_is_awaited(clickhouse: ClickHouseServer, shop: Shop) -> None:
    with impatient(shop, clickhouse) as sink, running(sink):
        before = refusals()
        clickhouse.pause()
        add_rows(shop, range(500))
        wait_until(lambda: refusals() > before)
        clickhouse.resume()
        wait_until(lambda: is_done(shop))
    assert_stored_once(shop, 500)


def test_clickhouse_that_takes_no_writes_is_awaited(shop: Shop) -> None:
    settings = shop.store._client.settings  # type: ignore[attr-defined]
    settings["readonly"] = 2
    with running(fast_sink(shop)):
        add_rows(shop, range(500))
        time.sleep(1)
        assert shop.offset() == 0
        assert shop.rows("SELECT count() FROM events") == [(0,)]
        settings["readonly"] = 0
        wait_until(lambda: is_done(shop))
    assert_stored_once(shop, 500)


def slow_down(shop: Shop, seconds: float, times: int) -> None:
    """Let every insert of events take `times` as long as one call of `sleep`, which takes 3 seconds at most."""
    for number in range(times):
        shop.store.query(f"CREATE TABLE slow_{number} (second UInt8) ENGINE = Null")
        select = f"SELECT sleep({seconds}) AS second FROM events"  # noqa: S608
        shop.store.query(f"CREATE MATERIALIZED VIEW slowly_{number} TO slow_{number} AS {select}")


@pytest.mark.parametrize("seconds", [0.5, pytest.param(2.5, marks=pytest.mark.soak)])
def test_slow_inserts_make_large_batches_and_no_repeats(shop: Shop, seconds: float) -> None:
    before = refusals()
    slow_down(shop, seconds, times=2)
    begin = time.monotonic()
    with running(fast_sink(shop, batch_rows=10_000)):
        for first in range(0, 2_000, 100):
            add_rows(shop, range(first, first + 100))
            time.sleep(0.05)
        wait_until(lambda: is_done(shop))
    most = (time.monotonic() - begin) / (2 * seconds) + 1
    ((inserts,),) = shop.rows(
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND level = 0"
    )
    assert refusals() == before
    assert inserts <= most, "what came while an insert took its time went together"
    assert_stored_once(shop, 2_000)


def test_answers_that_come_too_late_double_nothing(clickhouse: ClickHouseServer, shop: Shop) -> None:
    """The server goes on with an insert though its client has given up: what became of it is not known then."""
    slow_down(shop, 3.0, times=1)
    before = refusals()
    with impatient(shop, clickhouse) as sink, running(sink):
        add_rows(shop, range(500))
        wait_until(lambda: refusals() >= before + 2)
        shop.store.query("DROP TABLE slowly_0")
        wait_until(lambda: is_done(shop))
    assert_stored_once(shop, 500)


def test_too_many_parts_are_awaited(shop: Shop) -> None:
    shop.store.query("SYSTEM STOP MERGES events")
    shop.store.query("ALTER TABLE events MODIFY SETTING parts_to_delay_insert = 2, parts_to_throw_insert = 3")
    before = refusals()
    with running(fast_sink(shop, batch_rows=50)):
        add_rows(shop, range(1_000))
        wait_until(lambda: refusals() > before + 1)
        assert 0 < shop.offset() < 1_000
        shop.store.query("SYSTEM START MERGES events")
        shop.store.query("ALTER TABLE events RESET SETTING parts_to_delay_insert, parts_to_throw_insert")
        wait_until(lambda: is_done(shop))
    assert_stored_once(shop, 1_000)


def test_full_disk_of_an_export_is_not_taken_for_an_absent_server(shop: Shop, tmp_path: Path) -> None:
    add_rows(shop, range(500))
    shop.sink.drain()
    with small_disk(tmp_path / "disk", mebibytes=1) as disk:
        fill(disk)
        path = disk / "lines.parquet"
        with pytest.raises(StoreError, match=rf"^{path} cannot be written .*; free space on its disk$") as told:
            shop.store.write(path, "SELECT number, toString(rand64()) AS text FROM numbers(200000)")
        assert not isinstance(told.value, StoreUnavailableError)
    shop.store.export(tmp_path / "export")
    assert pq.read_table(tmp_path / "export" / "events.parquet").num_rows == 500


def test_full_disk_of_clickhouse_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinking, "RETRY_S", 0.1)
    with small_disk(tmp_path / "disk", mebibytes=64) as disk, ClickHouseServer(disk / "clickhouse") as server:
        shop = Shop(clickhouse_store(server.address))
        before = refusals()
        with running(fast_sink(shop)):
            ballast = fill(disk)
            add_rows(shop, range(500))
            wait_until(lambda: refusals() > before + 1)
            assert shop.offset() == 0
            ballast.unlink()
            wait_until(lambda: is_done(shop))
        assert_stored_once(shop, 500)
        shop.store.close()
