"""What was recorded is in the next answer of the same replica, and soon in that of another."""

import time

import pytest

from shopkeeper.client import event
from shopkeeper.v1 import catalog_service_pb2, event_service_pb2, recommendation_service_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_VIEW
from shopkeeper.v1.item_pb2 import Item
from tests.shop_process import ShopProcess

ROUNDS = 10_000
ITEMS = 500


def record(shop: ShopProcess, item_id: str, visitor_id: str) -> None:
    view = event(EVENT_TYPE_VIEW, visitor_id, [item_id])
    request = event_service_pb2.RecordEventsRequest(events=[view])
    answer = shop.call("EventService/RecordEvents", request.SerializeToString())
    result = event_service_pb2.RecordEventsResponse.FromString(answer).results[0]
    assert result.status == event_service_pb2.EventResult.STATUS_ACCEPTED, result


def latest(shop: ShopProcess, visitor_id: str) -> str:
    request = recommendation_service_pb2.RecommendRequest(
        context=Context(visitor_id=visitor_id),
        placements=[recommendation_service_pb2.PlacementRequest(placement_id="recently_viewed", page_size=1)],
    )
    answer = shop.call("RecommendationService/Recommend", request.SerializeToString())
    return recommendation_service_pb2.RecommendResponse.FromString(answer).slates[0].items[0].item_id


def fill_catalogue(shop: ShopProcess) -> None:
    items = [Item(item_id=f"item-{number}") for number in range(ITEMS)]
    shop.call("CatalogService/UpsertItems", catalog_service_pb2.UpsertItemsRequest(items=items).SerializeToString())


@pytest.mark.timeout(1200)
def test_an_answer_reflects_what_was_recorded_before_it(tmp_path):
    moving = {"SHOPKEEPER__CLOCK__START": "", "SHOPKEEPER__CLOCK__RATE": "1"}
    with ShopProcess(tmp_path / "data", **moving) as shop:
        fill_catalogue(shop)
        misses = 0
        for number in range(ROUNDS):
            item_id, visitor_id = f"item-{number * 7 % ITEMS}", f"visitor-{number % 50}"
            record(shop, item_id, visitor_id)
            time.sleep(0)
            misses += latest(shop, visitor_id) != item_id
        assert misses == 0
        assert shop.stop() == 0
