"""A log whose file is an older copy of itself, or another machine's: what it acknowledges reaches everyone once."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event

import pytest
from structlog.testing import capture_logs

from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.ports import LogWentBackError, NewRecord
from server.settings import KafkaSettings
from server.streams import FOLLOWED
from server.workers.follower import Follower
from server.workers.sink import Sink
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT, RECORD_KIND_ITEM, ItemChange
from tests.kafka_shop import Machine, forget_all, kafka_settings, sink_of, topics
from tests.servers import ClickHouseServer, KafkaServer
from tests.table_shop import Shop, clickhouse_store, event, item, wait_until


@pytest.fixture
def settings(kafka: KafkaServer) -> KafkaSettings:
    return topics(kafka_settings(kafka.address))


class Exchange(Machine):
    """Log of a machine that is shipped and follows what others ship, a step at a time."""

    def __init__(self, folder: Path, settings: KafkaSettings) -> None:
        super().__init__(folder, settings)
        self.feed, self.inbox = KafkaFeed(settings, topics=FOLLOWED), SqliteInbox(folder / "log.sqlite")
        self.follower = Follower(self.feed, self.inbox)

    def catch_up(self) -> None:
        self.follower.catch_up(Event())

    def __exit__(self, *_: object) -> None:
        self.feed.close()
        self.inbox.close()
        super().__exit__()


def copied(source: Path, target: Path) -> None:
    """Copy a log as a backup does."""
    target.mkdir(exist_ok=True)
    with (
        closing(sqlite3.connect(source / "log.sqlite")) as log,
        closing(sqlite3.connect(target / "log.sqlite")) as copy,
    ):
        log.backup(copy)


def events(name: str, count: int) -> list[NewRecord]:
    return [event(f"{name}{number}", "a", visitor_id=f"v{number % 9}") for number in range(count)]


def named(title: str) -> NewRecord:
    return item(ItemChange(item=Item(item_id="a", title=title)))


def event_ids(machine: Machine) -> Counter[str]:
    return Counter(one.record_id for one in machine.log.read(0, 10_000) if one.kind == RECORD_KIND_EVENT)


def title(machine: Machine) -> str:
    changes = [one.payload for one in machine.log.read(0, 10_000) if one.kind == RECORD_KIND_ITEM]
    return ItemChange.FromString(changes[-1]).item.title


def ids(**counts: int) -> Counter[str]:
    return Counter(f"{name}{number}" for name, count in counts.items() for number in range(count))


@contextmanager
def watched(settings: KafkaSettings, folder: Path, address: str) -> Iterator[Callable[[Counter[str]], None]]:
    """Give a check that the log of another machine, and the tables, have events, each once."""
    shop = Shop(clickhouse_store(address))
    with Exchange(folder, settings) as other, sink_of(settings, shop.store) as sink:

        def check(wanted: Counter[str]) -> None:
            other.catch_up()
            assert event_ids(other) == wanted
            written_until(sink, lambda: stored(shop) == wanted)

        yield check
    shop.store.close()


def stored(shop: Shop) -> Counter[str]:
    return Counter(name for (name,) in shop.rows("SELECT event_id FROM events FINAL"))


def written_until(sink: Sink, condition: Callable[[], bool]) -> None:
    def is_written() -> bool:
        sink.step()
        return condition()

    wait_until(is_written)


def test_restored_backup_loses_nothing(settings: KafkaSettings, tmp_path: Path, clickhouse: ClickHouseServer) -> None:
    with watched(settings, tmp_path / "other", clickhouse.address) as check:
        with Exchange(tmp_path / "a", settings) as machine:
            machine.catch_up()
            machine.add(*events("e", 100), named("old"))
            machine.ship()
            machine.add(*events("waiting", 20), named("not shipped yet"))
            copied(tmp_path / "a", tmp_path / "backup")
            machine.ship()
            machine.add(*events("lost", 300), named("new"))
            machine.ship()
        check(ids(e=100, waiting=20, lost=300))
        (tmp_path / "a").rename(tmp_path / "damaged")
        (tmp_path / "backup").rename(tmp_path / "a")
        with Exchange(tmp_path / "a", settings) as machine, capture_logs() as lines:
            machine.add(*events("late", 50))  # acknowledged before Kafka was asked
            machine.catch_up()
            assert "log_went_back" in {line["event"] for line in lines}
            assert title(machine) == "new"
            assert machine.ship() == 50, "the others were in Kafka"
            machine.add(*events("later", 50))
            machine.ship()
            wanted = ids(e=100, waiting=20, lost=300, late=50, later=50)
            check(wanted)
            machine.catch_up()
            assert event_ids(machine) == wanted
        with Exchange(tmp_path / "a", settings) as again, capture_logs() as lines:
            again.catch_up()
            assert lines == []
            assert event_ids(again) == wanted


async def test_backup_that_is_older_than_what_kafka_keeps_loses_nothing_new(
    settings: KafkaSettings, tmp_path: Path, clickhouse: ClickHouseServer
) -> None:
    with watched(settings, tmp_path / "other", clickhouse.address) as check:
        with Exchange(tmp_path / "a", settings) as machine:
            machine.add(*events("e", 50))
            machine.ship()
            machine.catch_up()
            copied(tmp_path / "a", tmp_path / "backup")
            machine.add(*events("gone", 50))
            machine.ship()
        check(ids(e=50, gone=50))
        await forget_all(settings)
        with Exchange(tmp_path / "backup", settings) as machine:
            machine.catch_up()
            machine.add(*events("late", 50))
            machine.ship()
            check(ids(e=50, gone=50, late=50))


@pytest.mark.parametrize("at_once", [False, True])
def test_two_machines_that_began_with_one_log_lose_nothing(
    settings: KafkaSettings, tmp_path: Path, clickhouse: ClickHouseServer, at_once: bool
) -> None:
    with watched(settings, tmp_path / "other", clickhouse.address) as check, ExitStack() as stack:
        with Exchange(tmp_path / "a", settings) as machine:
            machine.add(*events("e", 100))
            machine.ship()
        copied(tmp_path / "a", tmp_path / "b")
        machines = {name: stack.enter_context(Exchange(tmp_path / name, settings)) for name in "ab"}
        for name, one in machines.items():
            one.add(*events(name, 50))
            one.catch_up()
            if not at_once:
                one.ship()
        if at_once:  # neither could know of the other
            for one in machines.values():
                one.ship()

        def are_two() -> bool:
            for one in machines.values():
                settle(one)
            return len({one.outbox.origin for one in machines.values()}) == 2

        wait_until(are_two)
        for one in machines.values():
            one.catch_up()
            assert event_ids(one) == ids(e=100, a=50, b=50)
        check(ids(e=100, a=50, b=50))


def settle(machine: Exchange) -> None:
    """Follow as the exchange does, which starts anew when it meets what another wrote under its name; then ship."""
    try:
        for _ in range(5):
            machine.follower.step()
    except LogWentBackError:
        machine.feed.begin(machine.inbox.places)
        machine.catch_up()
    machine.shipper = machine.another_shipper()
    machine.ship()
