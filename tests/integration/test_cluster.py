"""Two machines, Kafka and ClickHouse, as a deployment runs them."""

import random
import uuid
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from server.settings import ClickHouseSettings, Settings
from server.tables import request_export
from shopkeeper.v1 import catalog_service_pb2, placement_service_pb2, recommendation_service_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.event_service_pb2 import EventResult, RecordEventsRequest, RecordEventsResponse
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement
from tests.cluster_shop import cluster_settings, start, stored
from tests.kafka_shop import kafka_settings, topics
from tests.shop_process import ShopProcess
from tests.table_shop import wait_until


@pytest.fixture
def settings(kafka_address: str, clickhouse_address: str, tmp_path: Path) -> Settings:
    return cluster_settings(kafka_address, clickhouse_address, tmp_path / "a" / "data")


def view(event_id: str, visitor_id: str, item_id: str) -> Event:
    return Event(
        event_id=event_id,
        event_type=EventType.EVENT_TYPE_VIEW,
        context=Context(visitor_id=visitor_id),
        items=[EventItem(item_id=item_id)],
    )


def record(machine: ShopProcess, events: list[Event]) -> Counter[int]:
    reply = machine.call("EventService/RecordEvents", RecordEventsRequest(events=events).SerializeToString())
    return Counter(result.status for result in RecordEventsResponse.FromString(reply).results)


def seen(machine: ShopProcess, visitor_id: str) -> list[str]:
    request = recommendation_service_pb2.RecommendRequest(
        context=Context(visitor_id=visitor_id),
        placements=[recommendation_service_pb2.PlacementRequest(placement_id="recently_viewed", page_size=5)],
    )
    reply = machine.call("RecommendationService/Recommend", request.SerializeToString())
    slates = recommendation_service_pb2.RecommendResponse.FromString(reply).slates
    return [item.item_id for item in slates[0].items]


def description(machine: ShopProcess) -> str:
    request = placement_service_pb2.GetPlacementRequest(placement_id="recently_viewed").SerializeToString()
    reply = machine.call("PlacementService/GetPlacement", request)
    return placement_service_pb2.GetPlacementResponse.FromString(reply).placement.description


def test_machine_that_comes_before_migrate_serves_and_names_it(
    kafka_address: str, clickhouse_address: str, tmp_path: Path
) -> None:
    clickhouse = ClickHouseSettings(server=clickhouse_address, database=f"test_{uuid.uuid4().hex}")
    settings = Settings(kafka=kafka_settings(kafka_address), clickhouse=clickhouse)
    with start(settings, tmp_path / "a") as machine:
        assert record(machine, [view("e1", "v1", "i1")]) == {EventResult.STATUS_ACCEPTED: 1}
        log = tmp_path / "a" / "server.log"
        for event in ("not_followed", "batch_not_stored"):
            wait_until(lambda event=event: lines_of(log, event))
            assert all("run `shopkeeper migrate`" in line for line in lines_of(log, event))
        topics(settings.kafka)
        wait_until(lambda: stored(settings) == {"e1": 1})
        assert machine.stop() == 0


def lines_of(log: Path, event: str) -> list[str]:
    """Return the lines of an event."""
    return [line for line in log.read_text(encoding="utf-8").splitlines() if f'"event": "{event}"' in line]


def test_machines_share_events_and_documents_and_survive_a_kill(settings: Settings, tmp_path: Path) -> None:
    chance = random.Random(7)
    with start(settings, tmp_path / "a") as here, start(settings, tmp_path / "b") as there:
        items = catalog_service_pb2.UpsertItemsRequest(items=[Item(item_id="brie", title="Brie")])
        here.call("CatalogService/UpsertItems", items.SerializeToString())
        assert record(here, [view("first", "v", "brie")]) == {EventResult.STATUS_ACCEPTED: 1}
        assert seen(here, "v") == ["brie"], "an answer knows what was acknowledged before it"
        wait_until(lambda: seen(there, "v") == ["brie"])
        placement = Placement(
            placement_id="recently_viewed", description="ours", sources=[{"source": "recently_viewed"}]
        )
        request = placement_service_pb2.UpsertPlacementRequest(placement=placement).SerializeToString()
        there.call("PlacementService/UpsertPlacement", request)
        wait_until(lambda: description(here) == "ours")

        sent = {"first"}
        rejected = 0
        for batch in range(20):
            ids = [f"{batch}-{number}" for number in range(200)]
            events = [view(event_id, f"v{chance.randrange(50)}", "brie") for event_id in ids]
            events.append(view("", "v", "no id"))
            counts = record((here, there)[batch % 2], events)
            assert counts == {EventResult.STATUS_ACCEPTED: 200, EventResult.STATUS_REJECTED: 1}
            rejected += counts[EventResult.STATUS_REJECTED]
            sent |= set(ids)
        assert record(there, [view("first", "v", "brie")]) == {EventResult.STATUS_DUPLICATE: 1}
        here.kill()
        with start(settings, tmp_path / "a") as again:
            assert seen(again, "v") == ["brie"]
            events = pq.read_table(request_export(settings, 60) / "events.parquet")
            assert Counter(events.column("event_id").to_pylist()) == Counter(sent), "an export awaits the sink"
            assert description(again) == "ours"
    assert stored(settings) == Counter(sent)
    assert (len(sent), rejected) == (4_001, 20)
