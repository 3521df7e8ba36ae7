"""Nothing known is no reason for an empty page: a new shop, a new visitor, a new item."""

import time

import pytest

from shopkeeper.calls import event
from shopkeeper.v1.common_pb2 import Money
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.recommendation_service_pb2 import (
    REASON_NEW_ARRIVAL,
    REASON_POPULAR,
    REASON_SAME_CATEGORY,
    REASON_TRENDING,
    PlacementRequest,
)

CATEGORIES = ("cheese", "bread", "wine")
DAY_MS = 86_400_000


def item(item_id, category, price=5, brand="acme", age_days=400):
    made = Item(item_id=item_id, title=item_id, category_path=["food", category], brand=brand)
    made.price.CopyFrom(Money(currency_code="EUR", units=price))
    made.release_time.FromMilliseconds(round(time.time() * 1000) - age_days * DAY_MS)
    return made


@pytest.fixture
async def client(shop):
    """Client of a shop that has a catalogue and nothing else."""
    items = [item(f"{name}-{number:02}", name, price=number + 1) for name in CATEGORIES for number in range(12)]
    await shop.client.upsert_items(items)
    return shop.client


async def slate(client, placement, visitor="nobody", anchors=()):
    answer = await client.recommend(PlacementRequest(placement_id=placement, anchor_item_ids=anchors), visitor)
    return answer.slates[0].items


def ids(items):
    return [shown.item_id for shown in items]


async def test_a_shop_without_events_fills_its_slates(client):
    for placement in ("home_for_you", "home_discover", "home_trending", "email_picks"):
        shown = ids(await slate(client, placement))
        assert len(shown) == len(set(shown)) == 10, placement


async def test_a_shop_without_events_shows_what_is_like_the_product(client):
    shown = await slate(client, "product_similar", anchors=["wine-05"])
    assert len(shown) == 10
    assert {shown.item_id.split("-")[0] for shown in shown} == {"wine"}
    assert "wine-05" not in ids(shown)
    assert set(ids(shown)[:2]) == {"wine-04", "wine-06"}  # the nearest prices
    assert all(shown.reason == REASON_SAME_CATEGORY and shown.because_item_id == "wine-05" for shown in shown)


async def test_a_new_visitor_sees_what_others_want(client):
    await client.record([event(EventType.EVENT_TYPE_PURCHASE, f"v{n}", ["bread-03"]) for n in range(5)])
    first, *others = await slate(client, "home_for_you")
    assert first.item_id == "bread-03"
    assert first.reason in {REASON_POPULAR, REASON_TRENDING}
    assert len(others) == 9


async def test_a_new_item_is_found_at_once_beside_its_like_and_among_the_new(client):
    await client.record([event(EventType.EVENT_TYPE_PURCHASE, f"v{n}", ["wine-01", "wine-02"]) for n in range(5)])
    await client.upsert_items([item("wine-new", "wine", price=6, age_days=1)])
    assert "wine-new" in ids(await slate(client, "product_similar", anchors=["wine-05"]))
    first = (await slate(client, "home_new"))[0]
    assert (first.item_id, first.reason) == ("wine-new", REASON_NEW_ARRIVAL)
    assert len(await slate(client, "product_similar", anchors=["wine-new"])) == 10


async def test_an_item_of_no_category_leaves_a_full_slate(client):
    await client.upsert_items([Item(item_id="bare")])
    assert len(await slate(client, "product_similar", anchors=["bare"])) == 10
    assert len(await slate(client, "product_similar", anchors=["never seen"])) == 10
