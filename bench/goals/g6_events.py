"""G6: events acknowledged after fsync through RecordEvents, against systems that get one event a call.

SQLite commits every event by itself; of aiokafka's `send` each is awaited before the next, or all together at the end.
"""

import asyncio
import itertools
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import grpc
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from measure import Comparison, Row, require, turns
from processes import SERVER_CORE, Server, running

from shopkeeper.calls import new_event_id
from shopkeeper.v1 import event_pb2, event_service_pb2
from shopkeeper.v1.common_pb2 import Context
from tests.servers import KafkaServer

GOAL: Final = 200

_RUNS: Final = 7
_BATCH: Final = 500
_BATCHES: Final = 200
_IN_FLIGHT: Final = 16
_SINGLE_S: Final = 2.0
_SENT: Final = 50_000
_TOPIC: Final = "events"
_PARTITIONS: Final = 12
_METHOD: Final = "/shopkeeper.v1.EventService/RecordEvents"
_EVENT: Final = 1


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the rows of G6 after the events on disk were counted."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=root)))
        kafka = stack.enter_context(KafkaServer(folder / "kafka"))
        asyncio.run(_make_topic(kafka.address))
        replica = stack.enter_context(running("replica", str(folder), "1", core=SERVER_CORE))
        cpu_s: list[float] = []

        def ours() -> float:
            bodies = [_batch(len(cpu_s), number) for number in range(_BATCHES)]
            before_s = replica.cpu_s()
            rate = asyncio.run(_send(replica, bodies))
            cpu_s.append(replica.cpu_s() - before_s)
            return rate

        rivals = {
            "ours": ours,
            "SQLite, one commit an event": lambda: _commit_singly(folder / "peer.sqlite"),
            "aiokafka, one send an event, each awaited": lambda: asyncio.run(_await_each(kafka.address)),
            "aiokafka, one send an event, awaited at the end": lambda: asyncio.run(_await_all(kafka.address)),
        }
        found = turns(rivals, _RUNS, note)
        _check(folder / "log.sqlite", len(cpu_s) * _BATCHES * _BATCH)
    cpu_us = sum(cpu_s) / (len(cpu_s) * _BATCHES * _BATCH) * 1e6
    names = ("G6", "G6 kafka each", "G6 kafka all")
    return [
        Comparison(found["ours"], found[peer]).row(name, "events/s", peer, **detail)
        for name, peer, detail in zip(
            names, list(rivals)[1:], ({"goal": GOAL, "cpu_us_per_event": cpu_us}, {}, {}), strict=True
        )
    ]


async def _make_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic(_TOPIC, _PARTITIONS, 1)])
    await admin.close()


def _producer(address: str) -> AIOKafkaProducer:
    """Return a producer that promises what our shipper does."""
    return AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True, linger_ms=0)


async def _await_each(address: str) -> float:
    """Return the events a second that Kafka acknowledges one by one."""
    async with _producer(address) as producer:
        await producer.send_and_wait(_TOPIC, b"first")
        count = 0
        started = time.perf_counter()
        while time.perf_counter() - started < _SINGLE_S:
            event = _event(0, count)
            await producer.send_and_wait(_TOPIC, event.SerializeToString(), event.context.visitor_id.encode())
            count += 1
        return count / (time.perf_counter() - started)


async def _await_all(address: str) -> float:
    """Return the events a second of as many sends as fit in Kafka's buffers, all acknowledged."""
    events = [(event.SerializeToString(), event.context.visitor_id.encode()) for event in
              (_event(0, number) for number in range(_SENT))]  # fmt: skip
    async with _producer(address) as producer:
        await producer.send_and_wait(_TOPIC, b"first")
        started = time.perf_counter()
        waiting = [await producer.send(_TOPIC, payload, key) for payload, key in events]
        await asyncio.gather(*waiting)
        return _SENT / (time.perf_counter() - started)


def _event(turn: int, number: int) -> event_pb2.Event:
    event = event_pb2.Event(
        event_id=new_event_id(),
        event_type=event_pb2.EVENT_TYPE_VIEW,
        context=Context(visitor_id=f"visitor-{turn}-{number % 20_000}", session_id=f"session-{number // 10}"),
        items=[event_pb2.EventItem(item_id=f"item-{number * 7 % 10_000}")],
    )
    event.event_time.GetCurrentTime()
    return event


def _batch(turn: int, batch: int) -> bytes:
    events = [_event(turn, batch * _BATCH + place) for place in range(_BATCH)]
    body: bytes = event_service_pb2.RecordEventsRequest(events=events).SerializeToString()
    return body


async def _send(replica: Server, bodies: Sequence[bytes]) -> float:
    """Return the events acknowledged a second, with `_IN_FLIGHT` calls at once."""
    async with grpc.aio.insecure_channel(replica.address) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
        waiting = iter(bodies)

        async def caller() -> list[bytes]:
            return [await call(body, timeout=30) for body in waiting]

        await channel.channel_ready()
        started = time.perf_counter()
        replies = await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
        seconds = time.perf_counter() - started
    for reply in itertools.chain.from_iterable(replies):
        results = event_service_pb2.RecordEventsResponse.FromString(reply).results
        accepted = sum(result.status == event_service_pb2.EventResult.STATUS_ACCEPTED for result in results)
        require(accepted == _BATCH, f"{accepted} of {_BATCH} events were accepted")
    return len(bodies) * _BATCH / seconds


def _commit_singly(path: Path) -> float:
    """Return the events a second that SQLite keeps when it syncs after each, with the settings of the log."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
        payload = _event(0, 0).SerializeToString()
        count = 0
        started = time.perf_counter()
        while time.perf_counter() - started < _SINGLE_S:
            connection.execute("INSERT INTO events (payload) VALUES (?)", (payload,))
            count += 1
        return count / (time.perf_counter() - started)


def _check(path: Path, count: int) -> None:
    """Require that the log's file holds every event once."""
    with closing(sqlite3.connect(path)) as connection:
        rows, ids = connection.execute(
            "SELECT count(*), count(DISTINCT record_id) FROM records WHERE kind = ?", (_EVENT,)
        ).fetchone()
    require(rows == ids == count, f"{count:,} events were acknowledged, {rows:,} are on disk with {ids:,} ids")
