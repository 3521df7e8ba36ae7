"""LAG: an acknowledged event is in the next answer of its replica at once, and in those of another one soon."""

import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from measure import Row, quantile, require
from processes import Server, running
from views import lags_ms, last_viewed, view

from shopkeeper.aio import AsyncClient
from shopkeeper.v1.item_pb2 import Item

_OWN: Final = 10_000
_OTHER: Final = 1_000
_CALLERS: Final = 8
_ITEMS: Final = 500


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
                await view(client, visitor, item)
                misses += await last_viewed(client, visitor) != item
            return misses

        return sum(await asyncio.gather(*(caller() for _ in range(_CALLERS))))


async def _lags_ms(one: Server, other: Server) -> list[float]:
    """Return the milliseconds from each acknowledgement by `one` to the first answer of `other` that reflects it."""
    async with AsyncClient(one.address, timeout_s=5) as writer, AsyncClient(other.address, timeout_s=5) as reader:
        return await lags_ms(writer, reader, [f"item-{number}" for number in range(_ITEMS)], _OTHER)
