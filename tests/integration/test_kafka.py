"""The log on a real Kafka: shipped in order, read once, made into tables again."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError

from server.adapters.inbox import SqliteInbox
from server.adapters.kafka_feed import KafkaFeed
from server.ports import LogRecord, NewRecord, StoreError, StreamUnavailableError
from server.settings import KafkaSettings
from server.streams import FOLLOWED, headers_of
from server.telemetry import LOST_OFFSETS
from server.workers.follower import Follower
from server.workers.sink import Sink
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement
from shopkeeper.v1.record_pb2 import DecidedSlate, Decision, DocumentChange, ItemChange, RecordKind
from tests.kafka_shop import Machine, drain, drained, forget_all, ids, kafka_settings, make_anew, sink_of, topics
from tests.table_shop import Shop, clickhouse_store, erasure, event, item, profile


@pytest.fixture
def settings(kafka_address: str) -> KafkaSettings:
    return topics(kafka_settings(kafka_address))


@pytest.fixture
def machine(settings: KafkaSettings, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "a", settings) as machine:
        yield machine


@pytest.fixture
def feed(settings: KafkaSettings) -> Iterator[KafkaFeed]:
    feed = KafkaFeed(settings, "test")
    feed.begin(dict)
    yield feed
    feed.close()


@pytest.fixture
def tables(clickhouse_address: str) -> Iterator[Shop]:
    shop = Shop(clickhouse_store(clickhouse_address))
    yield shop
    shop.store.close()


def test_records_arrive_once_and_in_order_of_their_visitor(machine: Machine, feed: KafkaFeed) -> None:
    sent = [event(f"e{number}", "a", visitor_id=f"v{number % 7}") for number in range(500)]
    machine.add(*sent, item(ItemChange(item=Item(item_id="a"))))
    assert machine.ship() == 501
    assert machine.another_shipper().step() == 0
    records = drained(feed, 501)
    assert Counter(ids(records)) == Counter([record.record_id for record in sent] + [""])
    for key in {record.key for record in sent}:
        mine = [record for record in records if record.key == key]
        assert ids(mine) == [record.record_id for record in sent if record.key == key]
        assert [record.offset for record in mine] == sorted(record.offset for record in mine)
        payloads = {record.record_id: record.payload for record in sent}
        assert all(payloads[record.record_id] == record.payload and record.time_ms == 1_000 for record in mine)
    assert feed.lag() == 0


def test_large_record_is_shipped_alone(machine: Machine, feed: KafkaFeed) -> None:
    sizes = [10, 3_000_000, 600_000, 10]
    machine.add(*(NewRecord(1, "v", f"e{size}-{number}", bytes(size)) for number, size in enumerate(sizes)))
    assert machine.ship() == 4
    assert [len(record.payload) for record in drained(feed, 4)] == sizes


def test_what_is_shipped_again_counts_once(machine: Machine, feed: KafkaFeed) -> None:
    machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(50)))
    machine.ship()
    machine.outbox.mark_shipped(20)  # as if the acknowledgement of the rest was lost
    machine.add(event("e50", "a"))
    assert machine.another_shipper().step() == 31
    assert Counter(ids(drained(feed, 51))) == Counter(f"e{number}" for number in range(51))
    assert feed.read(10).records == []


def test_reader_goes_on_where_it_was_and_drops_what_is_shipped_again(
    machine: Machine, feed: KafkaFeed, settings: KafkaSettings
) -> None:
    machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(30)))
    machine.ship()
    positions: dict[str, int] = {}
    count = 0
    while count < 30:
        batch = feed.read(7)
        positions |= batch.positions
        count += len(batch.records)
    feed.close()
    machine.outbox.mark_shipped(0)
    machine.add(event("e30", "a"))
    machine.another_shipper().step()
    again = KafkaFeed(settings, "test")
    again.begin(lambda: positions)
    assert ids(drained(again, 1)) == ["e30"]
    again.close()


def test_read_that_failed_begins_again_where_the_rows_are(
    machine: Machine, feed: KafkaFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was gathered before the failure is read again, by a consumer that is not the one that failed."""
    positions: dict[str, int] = {}
    feed.begin(lambda: positions)
    machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(300)))
    machine.ship()
    records = []
    while not records:
        batch = feed.read(50)
        positions |= batch.positions
        records += batch.records
    getmany = feed._running.getmany
    gathered: list[int] = []

    async def refused(*parts: TopicPartition, **options: int) -> dict[TopicPartition, list[Any]]:
        if gathered:
            raise GroupAuthorizationFailedError
        found: dict[TopicPartition, list[Any]] = await getmany(*parts, **options)
        gathered.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(feed._running, "getmany", refused)
    with pytest.raises(StreamUnavailableError, match="GroupAuthorizationFailedError"):
        feed.read(1_000)
    assert gathered[0] > 0
    assert feed.lag() == 1, "not known"
    records += drained(feed, 300 - len(records))
    assert Counter(ids(records)) == Counter(f"e{number}" for number in range(300))


def test_tables_follow_kafka_and_are_made_again_from_it(
    machine: Machine, settings: KafkaSettings, tables: Shop, clickhouse_address: str
) -> None:
    slate = DecidedSlate(placement_id="home", item_ids="a", scores=[1.0], reasons=[1])
    home = DocumentChange(placement=Placement(placement_id="home", description="ours"))
    machine.add(
        *(event(f"e{number}", "a", visitor_id=f"v{number % 5}") for number in range(100)),
        NewRecord(RecordKind.RECORD_KIND_DECISION, "v1", "", Decision(now_ms=7, slates=[slate]).SerializeToString()),
        NewRecord(RecordKind.RECORD_KIND_EVENT, "v2", "broken", b"\xff"),
        item(ItemChange(item=Item(item_id="a", title="Brie"))),
        item(ItemChange(item=Item(item_id="a", brand="X"), update_paths=["brand"])),
        profile("v1", {"size": "M"}),
        erasure("v3"),
        NewRecord(RecordKind.RECORD_KIND_DOCUMENT, "", "", home.SerializeToString()),
    )
    count = machine.ship()
    with sink_of(settings, tables.store) as sink:
        assert drain(sink, count) == count
    with sink_of(settings, tables.store) as sink:
        assert [sink.step() for _ in range(10)] == [0] * 10, "the places are kept with the rows"
    rebuilt = Shop(clickhouse_store(clickhouse_address))
    with sink_of(settings, rebuilt.store) as sink:
        assert drain(sink, count) == count
    for shop in (tables, rebuilt):
        assert shop.rows("SELECT count(), uniqExact(event_id), countIf(visitor_id = 'v3') FROM events FINAL") == [
            (80, 80, 0)
        ]
        assert shop.rows("SELECT title, brand FROM items FINAL") == [("Brie", "X")]
        assert shop.rows("SELECT record_id, hex(payload) FROM bad_events FINAL") == [("broken", "FF")]
        assert shop.rows("SELECT count() FROM decisions FINAL") == [(1,)]
        assert shop.rows("SELECT visitor_id, trait_values FROM profiles FINAL") == [("v1", ["M"])]
    rebuilt.store.close()


def test_kafka_that_ends_before_the_tables_is_told_from_theirs(
    machine: Machine, settings: KafkaSettings, tables: Shop
) -> None:
    machine.add(*(event(f"e{number}", "a") for number in range(30)))
    machine.ship()
    with sink_of(settings, tables.store) as sink:
        drain(sink, 30)
    make_anew(settings)
    machine.add(event("e30", "a"))
    machine.another_shipper().step()
    another = r"events/2 was read up to offset 29 and ends at 0, so this is another Kafka; take a new kafka\.prefix"
    with sink_of(settings, tables.store) as sink:
        for _ in range(2):
            with pytest.raises(StoreError, match=another):
                step_until([sink], lambda: False)
            assert sink._feed.lag() > 0, "the alarm sees it"
    with closing(KafkaFeed(settings, topics=FOLLOWED)) as feed:
        feed.begin(tables.store.positions)
        with pytest.raises(StoreError, match=another):
            feed.ends()  # which the follower asks for before anything is shipped
    assert tables.rows("SELECT count() FROM events FINAL") == [(30,)]


@pytest.mark.parametrize("offset", [0, 99])
async def test_place_that_is_gone_under_a_reader_is_looked_for_anew(
    machine: Machine, feed: KafkaFeed, settings: KafkaSettings, offset: int
) -> None:
    """It would else go on from the first offset of a Kafka that it did not look at, and count nothing as lost."""
    part = TopicPartition(f"{settings.prefix}.events", 2)
    machine.add(event("e0", "a"))
    machine.ship()
    drained(feed, 1)
    feed.begin(lambda: {f"{part.topic}/2": 0})
    machine.add(*(event(f"e{number}", "a") for number in range(1, 30)))
    machine.ship()
    await forget_all(settings)
    lost = LOST_OFFSETS._value.get()
    feed._running.seek(part, offset)
    with pytest.raises(StreamUnavailableError, match="OffsetOutOfRange"):
        drained(feed, 1)
    machine.add(event("e30", "a"))
    machine.ship()
    assert ids(drained(feed, 1)) == ["e30"]
    assert LOST_OFFSETS._value.get() == lost + 29


def test_place_moves_on_though_all_that_came_was_known(machine: Machine, settings: KafkaSettings, tables: Shop) -> None:
    machine.add(event("e1", "a"))
    machine.ship()
    with sink_of(settings, tables.store) as sink:
        drain(sink, 1)
        before = tables.store.positions()
        machine.outbox.mark_shipped(0)
        machine.another_shipper().step()
        step_until([sink], lambda: tables.store.positions() != before)
    ((name, place),) = [(name, at) for name, at in before.items() if name.count("/") == 1]
    assert tables.store.positions() == before | {name: place + 1}


def test_event_that_two_machines_accepted_is_one_row(
    machine: Machine, settings: KafkaSettings, tables: Shop, tmp_path: Path
) -> None:
    events = [event(f"e{number}", "a", "b", visitor_id=f"v{number % 5}") for number in range(100)]
    for one in events[::2]:  # those without a time of their own get that of their arrival
        message = Event.FromString(one.payload)
        message.ClearField("event_time")
        events[events.index(one)] = one._replace(payload=message.SerializeToString())
    machine.add(*events, time_ms=1_000)
    machine.ship()
    with Machine(tmp_path / "b", settings) as other:
        other.add(*reversed(events), time_ms=2_000)
        other.ship()
    with sink_of(settings, tables.store) as sink:
        assert drain(sink, 200) == 200
    assert tables.rows("SELECT count(), uniqExact(event_id), uniqExact(line) FROM events FINAL") == [(200, 100, 2)]


def test_default_document_gives_way_to_what_was_set(machine: Machine, settings: KafkaSettings, tables: Shop) -> None:
    def document(text: str, record_id: str = "") -> NewRecord:
        change = DocumentChange(placement=Placement(placement_id="home", description=text))
        return NewRecord(RecordKind.RECORD_KIND_DOCUMENT, "", record_id, change.SerializeToString())

    machine.add(document("default", "placement/home"), document("ours"), document("new", "placement/home "))
    machine.ship()
    with sink_of(settings, tables.store) as sink:
        drain(sink, 3)
    assert tables.rows("SELECT payload LIKE '%ours%' FROM documents FINAL") == [(True,)]


async def test_foreign_message_is_set_aside(settings: KafkaSettings, tables: Shop, tmp_path: Path) -> None:
    ours = headers_of(LogRecord(7, 1, 9, "v", "e1", b""), "here", 5, 3)
    item_kind = str(RecordKind.RECORD_KIND_ITEM).encode()
    changes = [("kind", None), ("origin", None), ("offset", b"9" * 30), ("kind", item_kind)]
    spoiled = [[], *([*ours, change] for change in changes)]
    async with AIOKafkaProducer(bootstrap_servers=settings.servers) as producer:
        for headers in spoiled:
            await producer.send_and_wait(f"{settings.prefix}.events", b"who am I", partition=0, headers=headers)
    with sink_of(settings, tables.store) as sink:
        assert drain(sink, 5) == 5
    assert tables.rows("SELECT kind, payload FROM bad_events FINAL") == [(-1, "who am I")] * 5
    assert all("no record of ours" in reason for (reason,) in tables.rows("SELECT reason FROM bad_events FINAL"))
    with closing(SqliteInbox(tmp_path / "log.sqlite")) as inbox, closing(KafkaFeed(settings, topics=FOLLOWED)) as feed:
        Follower(feed, inbox).catch_up(Flag())
        assert inbox.places() == {f"{settings.prefix}.events/0": 4, f"{settings.prefix}.events/0/": 0}


def test_two_sinks_share_the_partitions(machine: Machine, settings: KafkaSettings, tables: Shop) -> None:
    def stored() -> int:
        return int(tables.rows("SELECT uniqExact(event_id) FROM events")[0][0])

    machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(300)))
    machine.ship()
    with sink_of(settings, tables.store) as first:
        drain(first, 300)
        with sink_of(settings, tables.store) as second:
            step_until((first, second), lambda: bool(second._feed._reached))
            machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(300, 600)))
            machine.ship()
            counts = step_until((first, second), lambda: stored() == 600)
    assert all(counts), "both had work"
    assert tables.rows("SELECT count(), uniqExact(event_id) FROM events FINAL") == [(600, 600)]


def step_until(sinks: Sequence[Sink], condition: Callable[[], bool]) -> list[int]:
    """Return how many records each sink wrote until the condition held."""
    counts = [0] * len(sinks)
    for _ in range(300):
        if condition():
            return counts
        counts = [count + sink.step() for count, sink in zip(counts, sinks, strict=True)]
    pytest.fail("nothing happened in 300 turns")


def test_tables_of_a_local_log_do_not_follow_kafka(settings: KafkaSettings, tables: Shop) -> None:
    tables.add(event("e1", "a"))
    tables.sink.drain()
    with pytest.raises(StoreError, match="log was read before"), sink_of(settings, tables.store):
        pass
