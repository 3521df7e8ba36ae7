"""The clock of the machine jumps: nothing is lost or refused, pages go on coming, a restart tells the same."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from core_rs import Engine
from server.adapters.chdb_store import ChdbStore
from server.adapters.memory_log import MemoryLog
from server.adapters.sqlite_log import open_log
from server.app import App
from server.ports import NewRecord
from server.settings import ListenSettings, Settings, load_settings
from server.workers.log_feed import LogFeed
from server.workers.replica import Replica
from server.workers.sink import Sink
from shopkeeper.aio import AsyncClient, event
from shopkeeper.calls import CallError
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, Event
from shopkeeper.v1.event_service_pb2 import EventResult
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.profile_service_pb2 import EraseUserRequest
from shopkeeper.v1.profile_service_pb2_grpc import ProfileServiceStub
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT
from tests.set_clock import SetClock, set_clock
from tests.table_shop import wait_until

START_MS = 1_768_478_400_000
DAY_MS = 86_400_000
ITEMS = 30


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    return set_clock(monkeypatch, START_MS)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[AsyncClient]:
    app = App(settings)
    async with AsyncClient(await app.start(), timeout_s=60) as client:
        yield client
    await app.stop()


async def page(client: AsyncClient) -> list[tuple[str, float]]:
    answer = await client.recommend(PlacementRequest(placement_id="home_for_you", page_size=ITEMS), "v")
    return [(item.item_id, item.score) for item in answer.slates[0].items]


def purchase(event_id: str, number: int, time_ms: int | None) -> Event:
    made = event(EVENT_TYPE_PURCHASE, "v", [f"i{number % ITEMS}"])
    made.event_id = event_id
    made.ClearField("event_time")
    if time_ms is not None:
        made.event_time.FromMilliseconds(time_ms)
    return made


@pytest.mark.parametrize("jumps_days", [(400, 0), (-400, 0), (1, -1, 700, -700)])
async def test_jumps_lose_nothing_and_leave_every_page_full(
    tmp_path: Path, clock: SetClock, jumps_days: tuple[int, ...]
) -> None:
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0))
    sent = 0
    async with serving(settings) as client:
        await client.upsert_items([Item(item_id=f"i{number}", category_path=["c"]) for number in range(ITEMS)])
        for days in (0, *jumps_days):
            clock.time_ms = START_MS + days * DAY_MS
            batch = [purchase(f"e{sent + n}", sent + n, clock.time_ms if n % 2 else None) for n in range(20)]
            results = (await client.record(batch)).results
            assert {result.status for result in results} == {EventResult.STATUS_ACCEPTED}
            sent += len(batch)
            found = await page(client)
            assert len(found) == ITEMS
            assert all(0.0 <= score < float("inf") for _, score in found)
        assert (await client.profile("v")).live_state.event_count == sent
    async with serving(settings) as client:
        assert await page(client) == found, "a start from the snapshot tells the same"
    for path in settings.snapshot_dir.glob("*.snapshot"):
        path.unlink()
    async with serving(settings) as client:
        assert await page(client) == found, "and so does one from the log"
        assert (await client.record([purchase("e0", 0, None)])).results[0].status == EventResult.STATUS_DUPLICATE
    with closing(open_log(settings)) as log, closing(ChdbStore(settings.store_dir)) as store:
        store.migrate()
        Sink(LogFeed(log), store, settings.sink).drain()
        rows = store.query("SELECT event_id FROM events FINAL").column("event_id").to_pylist()
        assert sorted(rows) == sorted(f"e{number}" for number in range(sent))


async def test_who_is_forgotten_after_the_clock_went_back_is_forgotten_and_may_come_back(
    tmp_path: Path, clock: SetClock
) -> None:
    settings = Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0))
    async with serving(settings) as client:
        clock.time_ms = START_MS + 400 * DAY_MS
        await client.record([purchase("e1", 1, None)])
        clock.time_ms = START_MS
        await ProfileServiceStub(client._channel).EraseUser(EraseUserRequest(visitor_id="v"))
        with pytest.raises(CallError, match="PROFILE_NOT_FOUND"):
            await client.profile("v")
        await client.record([purchase("e2", 2, None)])
        assert (await client.profile("v")).live_state.event_count == 1
    with closing(open_log(settings)) as log, closing(ChdbStore(settings.store_dir)) as store:
        store.migrate()
        sink = Sink(LogFeed(log), store, settings.sink)
        sink.drain()
        store.erase(store.erasures())  # as a sweep does
        assert store.query("SELECT event_id FROM events FINAL").column("event_id").to_pylist() == ["e2"]


def test_snapshots_go_on_though_the_newest_seems_to_be_of_the_future(tmp_path: Path) -> None:
    settings = load_settings(None, {"data_dir": tmp_path, "snapshot.interval_s": 0.05})
    log, engine = MemoryLog(), Engine()
    replica = Replica(engine, log, settings)

    def saved() -> list[int]:
        return sorted(int(path.stem) for path in settings.snapshot_dir.glob("*.snapshot"))

    add(log)
    replica.follow()
    path = replica.save()
    assert path is not None
    next_year = time.time() + 365 * 86_400
    os.utime(path, (next_year, next_year))
    replica.start()
    add(log)
    wait_until(lambda: saved()[-1] == 2)
    replica.stop()


def add(log: MemoryLog) -> None:
    payload = purchase("", 1, START_MS).SerializeToString()
    log.append_later([NewRecord(RECORD_KIND_EVENT, "v", "", payload)], START_MS)
