"""G6: events acknowledged after fsync through RecordEvents against SQLite that commits every event by itself."""

import asyncio
import itertools
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import grpc
from measure import Row, interleave, require
from processes import SERVER_CORE, Server, running

from shopkeeper.calls import new_event_id
from shopkeeper.v1 import event_pb2, event_service_pb2
from shopkeeper.v1.common_pb2 import Context

GOAL: Final = 200

_RUNS: Final = 7
_BATCH: Final = 500
_BATCHES: Final = 200
_IN_FLIGHT: Final = 16
_SINGLE_S: Final = 2.0
_METHOD: Final = "/shopkeeper.v1.EventService/RecordEvents"
_EVENT: Final = 1


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the row of G6 after the events on disk were counted."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name, running("replica", name, "1", core=SERVER_CORE) as replica:
        cpu_s: list[float] = []
        turn = 0

        def ours() -> float:
            nonlocal turn
            turn += 1
            bodies = [_batch(turn, number) for number in range(_BATCHES)]
            before_s = replica.cpu_s()
            rate = asyncio.run(_send(replica, bodies))
            cpu_s.append(replica.cpu_s() - before_s)
            return rate

        def peer() -> float:
            return _commit_singly(Path(name) / "peer.sqlite")

        compared = interleave(ours, peer, _RUNS, note)
        _check(Path(name) / "log.sqlite", turn * _BATCHES * _BATCH)
    cpu_us = sum(cpu_s) / (turn * _BATCHES * _BATCH) * 1e6
    return [compared.row("G6", "events/s", "SQLite, one commit an event", goal=GOAL, cpu_us_per_event=cpu_us)]


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
