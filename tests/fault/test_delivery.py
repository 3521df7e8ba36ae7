"""Through Kafka into the tables, whatever the way: poison, repeats, other orders, sinks that come, go and sleep."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.sqlite_log import SqliteLog
from server.ports import NewRecord
from server.settings import KafkaSettings, SinkSettings
from server.streams import FOLLOWED
from server.workers.follower import Follower
from server.workers.replay import Fate, Replay
from server.workers.sink import Sink
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT
from tests.kafka_shop import Machine, drain, kafka_settings, sink_of, topics
from tests.running import running
from tests.servers import ClickHouseServer, KafkaServer
from tests.table_shop import Shop, clickhouse_store, event, wait_until


@pytest.fixture
def settings(kafka: KafkaServer) -> KafkaSettings:
    return topics(kafka_settings(kafka.address))


@pytest.fixture
def machine(settings: KafkaSettings, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "a", settings) as machine:
        yield machine


@pytest.fixture
def tables(clickhouse: ClickHouseServer) -> Iterator[Shop]:
    shop = Shop(clickhouse_store(clickhouse.address))
    yield shop
    shop.store.close()


def events(numbers: range) -> list[NewRecord]:
    return [event(f"e{number}", "a", visitor_id=f"v{number % 50}") for number in numbers]


def stored(tables: Shop) -> Counter[str]:
    return Counter(name for (name,) in tables.rows("SELECT event_id FROM events FINAL"))


def names(numbers: range) -> Counter[str]:
    return Counter(f"e{number}" for number in numbers)


@contextmanager
def running_sink(settings: KafkaSettings, address: str, database: str) -> Iterator[Sink]:
    """Run one more sink, with a connection of its own, on the tables of a shop."""
    store = clickhouse_store(address, database=database)
    with closing(store), closing(KafkaFeed(settings, "sink")) as feed:
        sink = Sink(feed, store, SinkSettings(batch_rows=500, batch_ms=20))
        with running(sink):
            yield sink


def test_poison_in_a_batch_is_set_aside_with_its_reason_and_comes_back_once_the_cause_is_gone(
    machine: Machine, settings: KafkaSettings, tables: Shop
) -> None:
    tables.store.query("ALTER TABLE events ADD CONSTRAINT known CHECK item_id != 'poison'")
    unreadable = NewRecord(RECORD_KIND_EVENT, "v7", "x1", b"\xff\xff")
    refused = [event(f"p{number}", "poison", visitor_id="v7") for number in range(3)]
    sent = [
        *events(range(400)),
        refused[0],
        *events(range(400, 700)),
        unreadable,
        *refused[1:],
        *events(range(700, 999)),
    ]
    machine.add(*sent)
    assert machine.ship() == len(sent)
    with sink_of(settings, tables.store) as sink:
        drain(sink, len(sent))
    bad = tables.rows("SELECT record_id, reason, hex(payload) FROM bad_events FINAL ORDER BY record_id")
    assert [(name, payload) for name, _, payload in bad] == [
        (record.record_id, record.payload.hex().upper()) for record in (*refused, unreadable)
    ]
    assert ["known" in reason for _, reason, _ in bad] == [True, True, True, False]
    assert all(reason for _, reason, _ in bad)
    assert stored(tables) == names(range(999))
    assert len(stored(tables)) + len(bad) == len(sent)
    tables.store.query("ALTER TABLE events DROP CONSTRAINT known")
    fates = [outcome.fate for outcome in Replay(tables.store, machine.log).try_again()]
    assert Counter(fates) == {Fate.STORED: 3, Fate.BAD: 1}
    assert stored(tables) == names(range(999)) + Counter(["p0", "p1", "p2"])
    assert tables.rows("SELECT record_id FROM bad_events FINAL") == [("x1",)]


def test_sinks_that_come_and_go_under_load_store_every_event_once(
    machine: Machine, settings: KafkaSettings, tables: Shop, clickhouse: ClickHouseServer
) -> None:
    database = tables.store._settings.database  # type: ignore[attr-defined]
    count = 0

    def load() -> None:
        nonlocal count
        for _ in range(10):
            machine.add(*events(range(count, count + 100)))
            machine.ship()
            count += 100
            time.sleep(0.05)

    with running_sink(settings, clickhouse.address, database) as first:
        load()
        wait_until(lambda: bool(first._feed._reached))
        with running_sink(settings, clickhouse.address, database) as second:
            wait_until(lambda: bool(second._feed._reached))
            load()
            with running_sink(settings, clickhouse.address, database) as third:
                load()
                wait_until(lambda: bool(third._feed._reached))
        load()
        wait_until(lambda: sum(stored(tables).values()) >= count)
    assert stored(tables) == names(range(count))


def test_sink_that_slept_over_a_rebalance_doubles_nothing_and_turns_nothing_back(
    machine: Machine, settings: KafkaSettings, tables: Shop
) -> None:
    """Two sinks have the same records in hand: the one was thought dead, and the other got its partitions."""
    machine.add(*events(range(300)))
    machine.ship()
    with sink_of(settings, tables.store) as asleep:
        for _ in range(100):
            asleep._batch = asleep._feed.read(1_000)
            if asleep._batch.positions:
                break
        stale = asleep._batch
        assert stale is not None
        assert stale.records
    machine.add(*events(range(300, 600)))
    machine.ship()
    with sink_of(settings, tables.store) as other:
        assert drain(other, 600) == 600
    before = tables.store.positions()
    asleep._batch = stale
    assert asleep.step() == len(stale.records)
    assert stored(tables) == names(range(600))
    assert tables.store.positions() == before, "no place goes back"


def shuffled(records: list[NewRecord], chance: random.Random) -> list[NewRecord]:
    """Return the records in any order, and a hundred of them twice or more."""
    some = [*records, *chance.choices(records, k=100)]
    chance.shuffle(some)
    return some


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_comes_twice_and_in_another_order_is_kept_once_everywhere(
    settings: KafkaSettings, tables: Shop, tmp_path: Path, seed: int
) -> None:
    """Two machines take the same events, each in its own order and some again, and lose acknowledgements of Kafka."""
    chance = random.Random(seed)
    with ExitStack() as stack:
        machines = [stack.enter_context(Machine(tmp_path / name, settings)) for name in "ab"]
        shares = [shuffled(events(numbers), chance) for numbers in (range(400), range(200, 600))]
        for begin in range(0, 500, 50):
            for machine, share in zip(machines, shares, strict=True):
                machine.add(*share[begin : begin + 50])
                machine.ship()
                if chance.random() < 0.5:
                    machine.outbox.mark_shipped(chance.randrange(machine.outbox.shipped()))
                    machine.shipper = machine.another_shipper()
        for machine in machines:
            machine.ship()
        with running_sink(settings, tables.store._settings.server, tables.store._settings.database):  # type: ignore[attr-defined]
            with follower(settings, tmp_path / "c" / "log.sqlite") as log:
                wait_until(lambda: log.last_offset() >= 600)
            wait_until(lambda: sum(stored(tables).values()) >= 600)
            machines[0].add(event("last", "a"))
            machines[0].ship()
            wait_until(lambda: "last" in stored(tables))
    assert stored(tables) == names(range(600)) + Counter(["last"])
    with closing(SqliteLog(tmp_path / "c" / "log.sqlite")) as log:
        assert Counter(record.record_id for record in log.read(0, 9_999)) == names(range(600))


@contextmanager
def follower(settings: KafkaSettings, path: Path) -> Iterator[SqliteLog]:
    """Run the follower of a third machine."""
    with (
        closing(SqliteInbox(path)) as inbox,
        closing(KafkaFeed(settings, topics=FOLLOWED)) as feed,
        closing(SqliteLog(path)) as log,
        running(Follower(feed, inbox)),
    ):
        yield log
