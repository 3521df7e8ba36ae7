"""LAG: an acknowledged event is in the next answer of its replica at once, and in those of another one soon."""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from measure import Row, quantile, require
from processes import Server, running

from shopkeeper.aio import AsyncClient, event
from shopkeeper.v1.event_pb2 import EVENT_TYPE_VIEW
from shopkeeper.v1.item_pb2 import Item

_OWN: Final = 10_000
_OTHER: Final = 1_000
_CALLERS: Final = 8
_ITEMS: Final = 500
_PLACEMENT: Final = "recently_viewed"
_PATIENCE_S: Final = 5.0


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the misses of one replica, and the lag of a second one that follows the same log."""
    root = Path(__file__).parents[2] / "data"
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root) as name, running("replica", name, "1") as one:
        started = time.perf_counter()
        misses = asyncio.run(_misses(one))
        pairs_per_s = _OWN / (time.perf_counter() - started)
        require(misses == 0, f"{misses:,} of {_OWN:,} answers lacked the event acknowledged before")
        note(f"no miss in {_OWN:,}")
        with running("replica", name, "1") as other:
            lags_ms = asyncio.run(_lags_ms(one, other))
    detail = {"p99_ms": quantile(lags_ms, 0.99), "max_ms": max(lags_ms)}
    return [
        Row("LAG own", float(misses), "misses", runs=_OWN, detail={"pairs_per_s": pairs_per_s}),
        Row("LAG other", quantile(lags_ms, 0.5), "ms", runs=_OTHER, spread=_range(lags_ms), detail=detail),
    ]


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


async def _view(client: AsyncClient, visitor: str, item: str) -> None:
    """Return once the view is acknowledged."""
    await client.record([event(EVENT_TYPE_VIEW, visitor, [item])])


async def _last_viewed(client: AsyncClient, visitor: str) -> str:
    answer = await client.recommend(_PLACEMENT, visitor)
    items = answer.slates[0].items
    return items[0].item_id if items else ""


async def _misses(server: Server) -> int:
    """Return how often the answer after an acknowledged view does not begin with the viewed item."""
    async with AsyncClient(server.address, timeout_s=5) as client:
        await client.upsert_items([Item(item_id=f"item-{number}") for number in range(_ITEMS)])
        turns = iter(range(_OWN))

        async def caller() -> int:
            misses = 0
            for turn in turns:
                # A visitor comes back every 1,000 turns, to another item; its events need times that differ.
                visitor, item = f"visitor-{turn % 1_000}", f"item-{(turn + turn // 1_000) % _ITEMS}"
                await _view(client, visitor, item)
                misses += await _last_viewed(client, visitor) != item
            return misses

        return sum(await asyncio.gather(*(caller() for _ in range(_CALLERS))))


async def _lags_ms(one: Server, other: Server) -> list[float]:
    """Return the milliseconds from each acknowledgement by `one` to the first answer of `other` that reflects it."""
    lags_ms = []
    async with AsyncClient(one.address, timeout_s=5) as writer, AsyncClient(other.address, timeout_s=5) as reader:
        for turn in range(_OTHER):
            visitor, item = f"guest-{turn}", f"item-{turn % _ITEMS}"
            await _view(writer, visitor, item)
            acknowledged = time.perf_counter()
            for _ in itertools.count():
                if await _last_viewed(reader, visitor) == item:
                    break
                require(time.perf_counter() - acknowledged < _PATIENCE_S, f"the other replica lags {_PATIENCE_S} s")
            lags_ms.append((time.perf_counter() - acknowledged) * 1e3)
    return lags_ms
