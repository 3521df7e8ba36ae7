"""kill -9 of the whole server under event load: nothing acknowledged is lost, nothing is doubled, answers come back."""

import random
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest

from server.adapters.chdb_store import ChdbStore
from server.adapters.sqlite_log import SqliteLog
from server.settings import Settings
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from shopkeeper.v1 import catalog_service_pb2, event_service_pb2, recommendation_service_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, Event, EventItem
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT
from tests.shop_process import ShopProcess

ITEMS = 200
VISITORS = 20
BATCH = 20


def event(name: str, chance: random.Random) -> Event:
    """Return a purchase of two items."""
    return Event(
        event_id=name,
        event_type=EVENT_TYPE_PURCHASE,
        context=Context(visitor_id=f"visitor-{chance.randrange(VISITORS)}"),
        items=[EventItem(item_id=f"item-{chance.randrange(ITEMS)}", quantity=1) for _ in range(2)],
    )


class Load(threading.Thread):
    """Records batches until the server is gone; a batch without an answer is sent again in the next round."""

    def __init__(self, lane: int, backlog: list[Event], round_number: int) -> None:
        super().__init__()
        self.acknowledged: set[str] = set()
        self.unanswered = backlog
        self._name = f"{lane}-{round_number}"
        self._chance = random.Random(self._name)
        self.shop: ShopProcess | None = None

    def run(self) -> None:
        for number in range(100_000):
            batch = self.unanswered or [event(f"e-{self._name}-{number}-{n}", self._chance) for n in range(BATCH)]
            self.unanswered = batch
            request = event_service_pb2.RecordEventsRequest(events=batch)
            try:
                answer = self.shop.call("EventService/RecordEvents", request.SerializeToString())
            except (grpc.RpcError, ValueError):  # the channel closes with the server
                return
            results = event_service_pb2.RecordEventsResponse.FromString(answer).results
            ok = {event_service_pb2.EventResult.STATUS_ACCEPTED, event_service_pb2.EventResult.STATUS_DUPLICATE}
            assert {result.status for result in results} <= ok
            self.acknowledged |= {sent.event_id for sent in batch}
            self.unanswered = []


def fill_catalogue(shop: ShopProcess) -> None:
    items = [Item(item_id=f"item-{n}", category_path=[f"c{n % 7}"]) for n in range(ITEMS)]
    request = catalog_service_pb2.UpsertItemsRequest(items=items)
    shop.call("CatalogService/UpsertItems", request.SerializeToString())


def answers(shop: ShopProcess) -> list[bytes]:
    """Return the bytes of every visitor's home page."""
    requests = (
        recommendation_service_pb2.RecommendRequest(
            request_id=f"r{visitor}",
            context=Context(visitor_id=f"visitor-{visitor}"),
            placements=[recommendation_service_pb2.PlacementRequest(placement_id="home_for_you", page_size=20)],
        )
        for visitor in range(VISITORS)
    )
    return [shop.call("RecommendationService/Recommend", request.SerializeToString()) for request in requests]


def stored_events(data_dir: Path) -> tuple[Counter[str], Counter[str]]:
    """Return how often each event id is in the log and, by line, in the table."""
    settings = Settings(data_dir=data_dir)
    log, store = SqliteLog(data_dir / "log.sqlite"), ChdbStore(settings.store_dir)
    store.migrate()
    Sink(LogFeed(log), store, settings.sink).drain()
    rows = store.query("SELECT event_id, line FROM events FINAL").to_pydict()
    in_table = Counter(f"{name}#{line}" for name, line in zip(rows["event_id"], rows["line"], strict=True))
    in_log = Counter(record.record_id for record in log.read(0, 10**9) if record.kind == RECORD_KIND_EVENT)
    log.close()
    store.close()
    return in_log, in_table


def run_rounds(data_dir: Path, rounds: int) -> set[str]:
    """Load and kill the server `rounds` times; return the acknowledged event ids."""
    chance = random.Random(7)
    acknowledged: set[str] = set()
    backlogs: list[list[Event]] = [[], [], []]
    for number in range(rounds):
        with ShopProcess(data_dir) as shop:
            loads = [Load(lane, backlog, number) for lane, backlog in enumerate(backlogs)]
            if number == 0:
                fill_catalogue(shop)
            answers(shop)
            for load in loads:
                load.shop = shop
                load.start()
            time.sleep(chance.uniform(0.05, 1.5))
            shop.kill()
            for load in loads:
                load.join()
        backlogs = [load.unanswered for load in loads]
        acknowledged.update(*(load.acknowledged for load in loads))
    return acknowledged


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [4, pytest.param(30, marks=pytest.mark.soak)])
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path, rounds):
    data_dir = tmp_path / "data"
    acknowledged = run_rounds(data_dir, rounds)
    assert len(acknowledged) > rounds * BATCH
    with ShopProcess(data_dir) as shop:
        before = answers(shop)
        shop.kill()
    with ShopProcess(data_dir) as shop:
        assert answers(shop) == before, "a restart changed an answer"
        assert shop.stop() == 0
    with ShopProcess(data_dir) as shop:
        assert answers(shop) == before, "a restart from the snapshot changed an answer"
        shop.stop()
    in_log, in_table = stored_events(data_dir)
    print(f"{len(acknowledged)} acknowledged, {len(in_log)} in the log, {len(in_table)} lines in the table")
    assert acknowledged <= in_log.keys()
    assert set(in_log.values()) == {1}
    assert in_table.keys() == {f"{name}#{line}" for name in in_log for line in range(2)}
    assert set(in_table.values()) == {1}
