"""An open-loop load on the machines of a cluster: batches of events, and pages beside them."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from shopkeeper.aio import AsyncClient, CallError, event
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, EVENT_TYPE_VIEW, Event
from shopkeeper.v1.event_service_pb2 import EventResult
from shopkeeper.v1.item_pb2 import Item

BATCH: Final = 20
"""Events of one call."""
PAGES: Final = 5
"""Recommendations asked for beside each batch."""
ITEMS: Final = 2_000
VISITORS: Final = 5_000
"""They are known from the beginning on, so that memory which grows does not grow for new ones."""

_PLACEMENTS: Final = ("home_for_you", "home_discover", "email_picks")
_PURCHASES: Final = 0.1
_KNOWN_BATCH: Final = 500


@dataclass
class Window:
    """What was seen since the last sample."""

    pages_ms: list[float] = field(default_factory=list)
    batches_ms: list[float] = field(default_factory=list)
    late_s: float = 0.0
    """How late the latest batch was sent after it was due."""


class Load:
    """Visitors of a shop that may come to any of its machines.

    Parameters
    ----------
    clients : of the machines
    seed : of visitors, items and kinds

    Attributes
    ----------
    acknowledged : number of events that a machine said it has
    unanswered : number of events of calls that failed; they may be there or not
    errors : calls that failed, by their status
    window : what was seen since somebody took it away
    """

    def __init__(self, clients: Sequence[AsyncClient], seed: int = 7) -> None:
        self._clients = clients
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self.acknowledged = self.unanswered = 0
        self.errors: Counter[str] = Counter()
        self.window = Window()

    async def prepare(self) -> None:
        """Fill the catalogue, and let every visitor do something."""
        for start in range(0, ITEMS, _KNOWN_BATCH):
            items = [Item(item_id=f"i{n}", category_path=[f"c{n % 40}"]) for n in range(start, start + _KNOWN_BATCH)]
            await self._clients[0].upsert_items(items)
        for start in range(0, VISITORS, _KNOWN_BATCH):
            await self._record([self._event(visitor) for visitor in range(start, start + _KNOWN_BATCH)])

    async def capacity(self, seconds: float, lanes: int) -> int:
        """Return how many batches went through in `seconds` as fast as the machines answer."""
        before, end = self.acknowledged, time.perf_counter() + seconds

        async def lane() -> None:
            while time.perf_counter() < end:
                await self._turn(time.perf_counter())

        await asyncio.gather(*(lane() for _ in range(lanes)))
        return (self.acknowledged - before) // BATCH

    @asynccontextmanager
    async def at_rate(self, turns_per_s: float) -> AsyncIterator[None]:
        """Begin a turn every `1 / turns_per_s` seconds, whatever becomes of those before, while the block runs."""
        stopping = asyncio.Event()
        task = asyncio.create_task(self._keep_rate(turns_per_s, stopping))
        try:
            yield
        finally:
            stopping.set()
            await task

    def take_window(self) -> Window:
        """Return what was seen since the last call."""
        window, self.window = self.window, Window()
        return window

    async def _keep_rate(self, turns_per_s: float, stopping: asyncio.Event) -> None:
        started, turn = time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while not stopping.is_set():
                due = started + turn / turns_per_s
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._turn(due))
                turn += 1

    async def _turn(self, due: float) -> None:
        self.window.late_s = max(self.window.late_s, time.perf_counter() - due)
        batch = [self._event(self._chance.randrange(VISITORS)) for _ in range(BATCH)]
        await asyncio.gather(self._record(batch), *(self._page() for _ in range(PAGES)))

    def _event(self, visitor: int) -> Event:
        kind = EVENT_TYPE_PURCHASE if self._chance.random() < _PURCHASES else EVENT_TYPE_VIEW
        return event(kind, f"v{visitor}", [f"i{int(ITEMS * self._chance.random() ** 2)}"])

    async def _record(self, batch: list[Event]) -> None:
        started = time.perf_counter()
        try:
            results = (await self._chance.choice(self._clients).record(batch)).results
        except CallError as error:
            self.errors[f"RecordEvents {error}"[:120]] += 1
            self.unanswered += len(batch)
            return
        self.window.batches_ms.append((time.perf_counter() - started) * 1e3)
        statuses = Counter(result.status for result in results)
        for status in (EventResult.STATUS_ACCEPTED, EventResult.STATUS_DUPLICATE):  # of a try whose answer was lost
            self.acknowledged += statuses.pop(status, 0)
        self.errors.update({EventResult.Status.Name(status): number for status, number in statuses.items()})

    async def _page(self) -> None:
        started = time.perf_counter()
        visitor = f"v{self._chance.randrange(VISITORS)}"
        try:
            answer = await self._chance.choice(self._clients).recommend(self._chance.choice(_PLACEMENTS), visitor)
        except CallError as error:
            self.errors[f"Recommend {error}"[:120]] += 1
            return
        self.window.pages_ms.append((time.perf_counter() - started) * 1e3)
        if not answer.slates[0].items:
            self.errors["empty page"] += 1
