"""A view at one server, and how long until the answers of another one reflect it."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from measure import require

from shopkeeper.aio import AsyncClient, event
from shopkeeper.v1.event_pb2 import EVENT_TYPE_VIEW
from shopkeeper.v1.recommendation_service_pb2 import REASON_RECENTLY_VIEWED

_PLACEMENT: Final = "recently_viewed"
_PATIENCE_S: Final = 30.0


async def view(client: AsyncClient, visitor: str, item: str) -> None:
    """Return once the view is acknowledged; it happens when it arrives, by the clock of the shop."""
    made = event(EVENT_TYPE_VIEW, visitor, [item])
    made.ClearField("event_time")
    await client.record([made])


async def last_viewed(client: AsyncClient, visitor: str) -> str:
    """Return the item that the server knows as viewed last; empty if none: other items fill the slate then."""
    answer = await client.recommend(_PLACEMENT, visitor)
    viewed = (item.item_id for item in answer.slates[0].items if item.reason == REASON_RECENTLY_VIEWED)
    return next(viewed, "")


async def lags_ms(
    writer: AsyncClient, reader: AsyncClient, items: Sequence[str], count: int, *, pause_s: float = 0.0
) -> list[float]:
    """Return the milliseconds from each acknowledgement by `writer` to the first answer of `reader` that reflects it.

    Each view is of a visitor of its own; `reader` is asked every `pause_s`.
    """
    found = []
    for turn in range(count):
        visitor, item = f"guest-{turn}", items[turn % len(items)]
        await view(writer, visitor, item)
        acknowledged = time.perf_counter()
        while await last_viewed(reader, visitor) != item:
            require(time.perf_counter() - acknowledged < _PATIENCE_S, f"the other server lags {_PATIENCE_S:g} s")
            await asyncio.sleep(pause_s)
        found.append((time.perf_counter() - acknowledged) * 1e3)
    return found
