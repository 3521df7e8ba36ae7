"""One visitor is forgotten: searched for afterwards in whatever two machines, Kafka and ClickHouse keep."""

import asyncio
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import grpc
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from core_rs import Engine, NotFoundError
from server.adapters.inbox import SqliteInbox
from server.adapters.kafka import topic_name
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import make_topics
from server.adapters.sql_store import rows_of
from server.settings import ClickHouseSettings, KafkaSettings, Settings
from server.tables import open_store, prepare_store, request_export
from server.workers.exports import KEEP_S
from server.workers.follower import Follower
from server.workers.replica import Replica
from shopkeeper.v1 import profile_service_pb2 as profiles
from shopkeeper.v1.catalog_service_pb2 import UpsertItemsRequest
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.item_pb2 import Item
from tests.integration.test_cluster import record, seen, start
from tests.kafka_shop import Machine, drain, kafka_settings, sink_of, topics
from tests.servers import KafkaServer
from tests.shop_process import ShopProcess
from tests.table_shop import Shop, clickhouse_store, erasure, event, profile, wait_until
from trainers.dataset import read_export

ITEMS = UpsertItemsRequest(items=[Item(item_id="brie"), Item(item_id="gouda")])
NAME, ALIAS, OTHER = "ann-7f3a", "anonymous-91c2", "somebody-else"
TRACE = "5e8d41c7"
"""Part of all that the visitor did and said, and of nothing else."""


@pytest.fixture
def settings(tmp_path: Path, clickhouse_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setenv("SHOPKEEPER__SNAPSHOT__INTERVAL_S", "0.2")
    with KafkaServer(tmp_path / "kafka") as server:
        kafka = kafka_settings(server.address)
        make_topics(kafka)
        clickhouse = ClickHouseSettings(server=clickhouse_address, database=f"test_{uuid.uuid4().hex}")
        settings = Settings(data_dir=tmp_path / "a" / "data", kafka=kafka, clickhouse=clickhouse)
        prepare_store(settings).close()
        yield settings


def events(user_id: str, visitor_id: str, trace: str, item_id: str) -> list[Event]:
    kinds = (EventType.EVENT_TYPE_VIEW, EventType.EVENT_TYPE_PURCHASE, EventType.EVENT_TYPE_SEARCH)
    context = Context(visitor_id=visitor_id, session_id=f"session-{trace}", query=f"cheese {trace}")
    bare = Event(event_id=f"bare-{trace}", event_type=kinds[0], context=context, items=[EventItem(item_id=item_id)])
    context.user_id = user_id
    items = [EventItem(item_id=item_id)]
    return [bare] + [
        Event(
            event_id=f"{kind}-{trace}",
            event_type=kind,
            context=context,
            attribution_token=f"token-{trace}",
            items=[] if kind == kinds[-1] else items,
        )
        for kind in kinds
    ]


def is_known(machine: ShopProcess, visitor_id: str) -> bool:
    request = profiles.GetProfileRequest(visitor_id=visitor_id).SerializeToString()
    try:
        machine.call("ProfileService/GetProfile", request)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def is_forgotten(machine: ShopProcess) -> bool:
    """Return whether the machine serves the visitor, by either name, as one it never saw."""
    strange = seen(machine, "never-here")
    return not any(is_known(machine, key) or seen(machine, key) != strange for key in (NAME, ALIAS))


def files_with(folder: Path, *texts: str) -> list[Path]:
    def has(path: Path) -> bool:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return False
        return any(text.encode() in content for text in texts)

    return [path for path in sorted(folder.rglob("*")) if path.is_file() and has(path)]


def tables_with(settings: Settings, *texts: str) -> set[str]:
    """Return the tables of which any column of any row holds one of the texts."""
    store = open_store(settings)
    columns = rows_of(store.query("SELECT table, name FROM system.columns WHERE database = currentDatabase()"))
    found = set()
    for table, name in columns:
        sql = f"SELECT count() FROM {table} WHERE multiSearchAny(toString({name}), {{texts:Array(String)}})"  # noqa: S608
        ((count,),) = rows_of(store.query(sql, {"texts": list(texts)}))
        found |= {table} if count else set()
    store.close()
    return found


async def in_kafka(settings: KafkaSettings) -> int:
    """Return how many messages of all topics tell of the visitor."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.servers, enable_auto_commit=False)
    await consumer.start()
    try:
        parts = [TopicPartition(topic_name(settings, topic), number) for topic in ("events", "decisions")
                 for number in range(settings.partitions)]  # fmt: skip
        consumer.assign(parts)
        await consumer.seek_to_beginning()
        ends, count = await consumer.end_offsets(parts), 0
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for messages in (await consumer.getmany(timeout_ms=200)).values():
                count += sum(TRACE.encode() in one.value or NAME.encode() in (one.key or b"") for one in messages)
        return count
    finally:
        await consumer.stop()


async def topic_settings(settings: KafkaSettings, changes: dict[str, str]) -> dict[str, str]:
    """Return the settings of the topic of events, and change them and those of decisions."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.servers)
    await admin.start()
    try:
        names = [topic_name(settings, topic) for topic in ("events", "decisions")]
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, names[0])])
        told = {entry[0]: entry[1] for entry in answer.resources[0][4]}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, changes) for name in names])
        return told
    finally:
        await admin.close()


def live(here: ShopProcess) -> None:
    """Let the shop have its first and its other visitor."""
    here.call("CatalogService/UpsertItems", ITEMS.SerializeToString())
    record(here, events(NAME, ALIAS, TRACE, "brie") + events(OTHER, OTHER, "one", "gouda"))
    record(here, events(OTHER, OTHER, "two", "gouda"))
    said = profiles.Profile(visitor_id=NAME, traits=[profiles.Trait(name="diet", value=TRACE)])
    here.call("ProfileService/UpsertProfile", profiles.UpsertProfileRequest(profile=said).SerializeToString())


def test_nothing_of_a_visitor_is_left_anywhere(settings: Settings, tmp_path: Path) -> None:
    places = [tmp_path / name for name in "abc"]
    with start(settings, places[0]) as here, start(settings, places[1]) as there:
        live(here)
        wait_until(lambda: seen(there, NAME)[:1] == ["brie"] and is_known(there, OTHER))
        assert not is_forgotten(there)
        before = request_export(settings, 60)
        assert tables_with(settings, TRACE, NAME, ALIAS) >= {"events", "profiles", "decisions"}
        wait_until(
            lambda: all(any("snapshots" in str(path) for path in files_with(place, TRACE)) for place in places[:2])
        )
        assert asyncio.run(in_kafka(settings.kafka)) >= 5

        answer = here.call("ProfileService/EraseUser", profiles.EraseUserRequest(visitor_id=NAME).SerializeToString())
        assert is_forgotten(here), "at once"
        assert not any("log.sqlite" in path.name for path in files_with(places[0], TRACE)), "at once"
        wait_until(lambda: is_forgotten(there))
        wait_until(lambda: tables_with(settings, TRACE, NAME, ALIAS) == {"erasures"})

        os.utime(before, (0, time.time() - KEEP_S - 9))
        after = request_export(settings, 60)
        assert not files_with(after, TRACE, NAME, ALIAS)
        assert read_export(after).dataset.visitors == [OTHER]

        def is_gone(place: Path) -> bool:
            context = Context(visitor_id=OTHER, query="cheese")
            record(here, [Event(event_id=uuid.uuid4().hex, event_type=EventType.EVENT_TYPE_SEARCH, context=context)])
            return not files_with(place, TRACE)

        wait_until(lambda: is_gone(places[0]))
        wait_until(lambda: is_gone(places[1]))
        with start(settings, places[2]) as rebuilt:
            wait_until(lambda: is_known(rebuilt, OTHER) and is_forgotten(rebuilt))
            wait_until(lambda: not files_with(places[2], TRACE))

    promised = profiles.EraseUserResponse.FromString(answer).complete_time
    assert settings.forgotten_after is not None
    hours = settings.kafka.retention_hours
    assert promised.ToMilliseconds() == 1_768_478_400_000 + (24 + hours) * 3_600_000
    assert asyncio.run(in_kafka(settings.kafka)) > 0, "until its retention ends"
    soon = {"retention.ms": "1", "segment.ms": "1"}
    told = asyncio.run(topic_settings(settings.kafka, soon))
    assert (told["retention.ms"], told["segment.ms"]) == (str(hours * 3_600_000), str(24 * 3_600_000))
    wait_until(lambda: asyncio.run(in_kafka(settings.kafka)) == 0)


def known(machine: Machine) -> list[str]:
    """Return the event ids that a log has, and whether its replicas serve the visitor u."""
    engine = Engine()
    Replica(engine, machine.log, Settings()).follow()
    ids = [one.record_id for one in machine.log.read(0, 1_000) if one.record_id]
    try:
        engine.profile("u")
    except NotFoundError:
        return ids
    return [*ids, "u is served"]


def follow(machine: Machine, kafka: KafkaSettings, count: int) -> None:
    """Let a machine take over from Kafka until it read `count` events, profiles and erasures, its own among them."""
    path = machine.log._path
    with closing(KafkaFeed(kafka, topics=("events",))) as feed, closing(SqliteInbox(path)) as inbox:
        follower = Follower(feed, inbox)

        def has_followed() -> bool:
            follower.step()
            return inbox.places().get(f"{kafka.prefix}.events/0", -1) == count - 1

        wait_until(has_followed)


def test_what_was_cut_off_when_its_visitor_was_forgotten_comes_back_nowhere(
    kafka_address: str, clickhouse_address: str, tmp_path: Path
) -> None:
    kafka = topics(kafka_settings(kafka_address, partitions=1))
    tables = Shop(clickhouse_store(clickhouse_address))
    with ExitStack() as stack:
        here, there, third = (stack.enter_context(Machine(tmp_path / name, kafka)) for name in "abc")
        there.add(event("old", "a", visitor_id="u"), profile("u", {"size": TRACE}), event("w1", "a", visitor_id="w"),
                  time_ms=1_000)  # fmt: skip
        here.add(erasure("u"), time_ms=2_000)
        here.ship()
        there.ship()
        for machine in (here, there, third):
            follow(machine, kafka, 4)
        assert [known(one) for one in (here, there, third)] == [["w1"]] * 3
        there.add(event("back", "a", visitor_id="u"), time_ms=2_001)
        there.ship()
        follow(here, kafka, 5)
        assert known(here) == ["w1", "back", "u is served"]
        with sink_of(kafka, tables.store) as sink:
            drain(sink, 5)
    assert sorted(tables.rows("SELECT event_id FROM events")) == [("back",), ("w1",)]
    assert tables.rows("SELECT count() FROM profiles") == [(0,)]
    tables.store.close()


def test_what_was_acknowledged_after_an_erasure_that_comes_late_stays_everywhere(
    kafka_address: str, clickhouse_address: str, tmp_path: Path
) -> None:
    kafka = topics(kafka_settings(kafka_address, partitions=1))
    tables = Shop(clickhouse_store(clickhouse_address))
    with ExitStack() as stack:
        here, there, third = (stack.enter_context(Machine(tmp_path / name, kafka)) for name in "abc")
        there.add(event("old", "a", visitor_id="u"), profile("u", {"size": TRACE}, training=True), time_ms=1_000)
        there.ship()
        for machine in (here, there, third):
            follow(machine, kafka, 2)
        here.add(erasure("u"), time_ms=2_000)
        here.log.erase("u")
        there.add(event("new", "a", visitor_id="u"), profile("u", {"city": "Ulm"}, training=False), time_ms=3_000)
        there.ship()
        with sink_of(kafka, tables.store) as sink:
            drain(sink, 4)
            here.ship()
            for machine in (here, there, third):
                follow(machine, kafka, 5)
            drain(sink, 1)
        assert [known(one) for one in (here, there, third)] == [["new", "u is served"]] * 3
    assert tables.rows("SELECT event_id FROM events") == [("new",)]
    names = f"trait_names, training, position(payload, '{TRACE}') + position(stated, '{TRACE}')"
    assert tables.rows(f"SELECT {names} FROM profiles") == [(["city"], False, 0)]  # noqa: S608
    tables.store.close()
