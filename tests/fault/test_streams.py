"""Kafka and ClickHouse go away, hang and come back: nothing acknowledged is lost, nothing counts twice."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.adapters import kafka_stream
from server.adapters.kafka_feed import KafkaFeed
from server.ports import LogRecord, StreamUnavailableError
from server.settings import SinkSettings
from server.telemetry import REPEATED_RECORDS
from server.workers import shipper as shipping
from server.workers import sink as sinking
from server.workers.sink import Sink
from tests.kafka_shop import Machine, drained, ids, kafka_settings, topics
from tests.servers import ClickHouseServer, KafkaServer
from tests.table_shop import Shop, clickhouse_store, event, wait_until


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def machine(kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(kafka_stream, "ROUND_S", 5.0)
    monkeypatch.setattr(shipping, "WAIT_S", (0.1, 0.5))
    with Machine(tmp_path, kafka_settings(kafka.address)) as machine:
        yield machine


@contextmanager
def running(work: Sink | shipping.Shipper) -> Iterator[None]:
    """Run a worker in a thread; it has to end within seconds of being told."""
    stopping = threading.Event()
    arguments = (stopping,) if isinstance(work, shipping.Shipper) else (stopping, lambda: None)
    thread = threading.Thread(target=work.run, args=arguments)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(20)
        assert not thread.is_alive()


def add_events(machine: Machine, numbers: Sequence[int]) -> None:
    machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number % 50}") for number in numbers))


def arrived(machine: Machine, count: int) -> Counter[str]:
    """Return how often each event came, once there were `count`."""
    feed = KafkaFeed(machine.stream._settings, "test")
    feed.begin(dict)
    found = Counter(ids([*drained(feed, count), *feed.read(1_000).records]))
    feed.close()
    return found


def test_outbox_waits_for_a_kafka_that_is_absent_at_the_start(kafka: KafkaServer, machine: Machine) -> None:
    kafka.stop()
    add_events(machine, range(1_000))
    with running(machine.shipper):
        time.sleep(2)
        assert machine.outbox.shipped() == 0
    kafka.start()
    topics(machine.stream._settings)
    with running(machine.another_shipper()):
        wait_until(lambda: machine.outbox.shipped() == 1_000)
    assert arrived(machine, 1_000) == Counter(f"e{number}" for number in range(1_000))


def test_kafka_that_is_killed_under_load_loses_and_doubles_nothing(kafka: KafkaServer, machine: Machine) -> None:
    topics(machine.stream._settings)
    count = 0
    with running(machine.shipper):
        for _ in range(2):
            for _ in range(20):
                add_events(machine, range(count, count + 500))
                count += 500
            kafka.kill()
            add_events(machine, range(count, count + 500))
            count += 500
            kafka.start()
        wait_until(lambda: machine.outbox.shipped() == count)
    assert arrived(machine, count) == Counter(f"e{number}" for number in range(count))


def test_shipper_ends_soon_though_kafka_hangs(kafka: KafkaServer, machine: Machine) -> None:
    topics(machine.stream._settings)
    add_events(machine, range(10))
    kafka.pause()
    try:
        begin = time.monotonic()
        with running(machine.shipper):
            time.sleep(1)
        machine.stream.close()
        assert time.monotonic() - begin < 25
        assert machine.outbox.shipped() == 0
    finally:
        kafka.resume()


def test_lost_acknowledgements_double_nothing(machine: Machine) -> None:
    topics(machine.stream._settings)
    send, lost = machine.stream.send, [True, True, False, True, False]

    def forgetful(records: Sequence[LogRecord], origin: str) -> int:
        count = send(records[:100], origin)
        if lost and lost.pop(0):
            raise StreamUnavailableError("the acknowledgement is lost")
        return count

    machine.stream.send = forgetful  # type: ignore[method-assign]
    add_events(machine, range(500))
    with running(machine.shipper):
        wait_until(lambda: machine.outbox.shipped() == 500)
    assert lost == []
    repeated = REPEATED_RECORDS._value.get()
    assert arrived(machine, 500) == Counter(f"e{number}" for number in range(500))
    assert REPEATED_RECORDS._value.get() - repeated == 300


@pytest.fixture
def clickhouse(tmp_path: Path) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path / "clickhouse") as server:
        yield server


@pytest.fixture
def shop(clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(sinking, "RETRY_S", 0.1)
    shop = Shop(clickhouse_store(clickhouse.address, answer_s=3.0))
    yield shop
    shop.store.close()


def fast_sink(shop: Shop) -> Sink:
    shop.sink._settings = SinkSettings(batch_rows=200, batch_ms=1)
    return shop.sink


def add_rows(shop: Shop, numbers: Sequence[int]) -> None:
    shop.add(*(event(f"e{number}", "a", visitor_id=f"v{number % 50}") for number in numbers))


def stored_ids(shop: Shop) -> Counter[str]:
    return Counter(event_id for (event_id,) in shop.rows("SELECT event_id FROM events FINAL"))


def test_clickhouse_that_is_killed_mid_insert_gets_every_row_once(clickhouse: ClickHouseServer, shop: Shop) -> None:
    with running(fast_sink(shop)):
        for round_number in range(3):
            begin = round_number * 2_000
            add_rows(shop, range(begin, begin + 2_000))
            time.sleep(0.3)
            clickhouse.kill()
            time.sleep(0.3)
            clickhouse.start()
        wait_until(lambda: shop.sink._feed.lag() == 0 and shop.sink._batch is None)
    assert stored_ids(shop) == Counter(f"e{number}" for number in range(6_000))
    assert shop.offset() == 6_000


def test_clickhouse_that_hangs_is_awaited(clickhouse: ClickHouseServer, shop: Shop) -> None:
    with running(fast_sink(shop)):
        clickhouse.pause()
        add_rows(shop, range(500))
        time.sleep(4)
        clickhouse.resume()
        wait_until(lambda: shop.sink._feed.lag() == 0 and shop.sink._batch is None)
    assert stored_ids(shop) == Counter(f"e{number}" for number in range(500))


def test_clickhouse_that_takes_no_writes_is_awaited(shop: Shop) -> None:
    settings = shop.store._client.settings  # type: ignore[attr-defined]
    settings["readonly"] = 2
    with running(fast_sink(shop)):
        add_rows(shop, range(500))
        time.sleep(1)
        assert shop.offset() == 0
        assert shop.rows("SELECT count() FROM events") == [(0,)]
        settings["readonly"] = 0
        wait_until(lambda: shop.sink._feed.lag() == 0 and shop.sink._batch is None)
    assert stored_ids(shop) == Counter(f"e{number}" for number in range(500))
    assert shop.rows("SELECT count() FROM bad_events") == [(0,)]
