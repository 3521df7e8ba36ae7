"""Kafka is absent, goes away, hangs and forgets to answer: nothing is lost, nothing counts twice."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from server.adapters import kafka_stream
from server.adapters.kafka_feed import KafkaFeed
from server.ports import LogRecord, StreamUnavailableError
from server.telemetry import REPEATED_RECORDS
from server.workers import shipper as shipping
from tests.kafka_shop import Machine, drained, ids, kafka_settings, topics
from tests.running import running
from tests.servers import KafkaServer
from tests.table_shop import event, wait_until


@pytest.fixture
def machine(kafka: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(kafka_stream, "ROUND_S", 20.0)
    monkeypatch.setattr(shipping, "WAIT_S", (0.1, 0.5))
    with Machine(tmp_path, kafka_settings(kafka.address)) as machine:
        yield machine


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


def test_shipper_ends_soon_though_kafka_hangs(
    kafka: KafkaServer, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_stream, "ROUND_S", 5.0)
    topics(machine.stream._settings)
    add_events(machine, range(10))
    kafka.pause()
    try:
        begin = time.monotonic()
        with running(machine.shipper):
            time.sleep(1)
        machine.stream.close()
        assert time.monotonic() - begin < 60
        assert machine.outbox.shipped() == 0
    finally:
        kafka.resume()


def test_reader_ends_soon_though_kafka_hangs_and_leaves_its_partitions(kafka: KafkaServer, machine: Machine) -> None:
    settings = topics(machine.stream._settings)
    add_events(machine, range(100))
    machine.ship()
    feed = KafkaFeed(settings, "test")
    feed.begin(dict)
    assert len(drained(feed, 100)) == 100
    kafka.pause()
    try:
        begin = time.monotonic()
        feed.close()
        assert time.monotonic() - begin < 45
        assert not feed._thread._thread.is_alive()
    finally:
        kafka.resume()
    assert arrived(machine, 100) == Counter(f"e{number}" for number in range(100))


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
