"""Bad input gets a clear error with field and fix, and the server goes on."""

import time

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from shopkeeper.calls import new_event_id
from shopkeeper.v1 import (
    catalog_service_pb2,
    event_service_pb2,
    placement_service_pb2,
    profile_service_pb2,
    recommendation_service_pb2,
)
from shopkeeper.v1.common_pb2 import Context, ItemFilter, Money
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.item_pb2 import Item, PromotionInterval
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest, RecommendRequest

EVENTS = "/shopkeeper.v1.EventService/RecordEvents"
RECOMMEND = "/shopkeeper.v1.RecommendationService/Recommend"
MODULES = (catalog_service_pb2, event_service_pb2, placement_service_pb2, recommendation_service_pb2)
UNARY_RPCS = [
    f"/{service.full_name}/{method.name}"
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if not (method.client_streaming or method.server_streaming)
]
TEXT_FIRST_RPCS = [
    RECOMMEND,
    "/shopkeeper.v1.CatalogService/GetItem",
    "/shopkeeper.v1.PlacementService/GetPlacement",
    "/shopkeeper.v1.PlacementService/DeleteControl",
]


async def fault_of(shop, rpc, request):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.channel.unary_unary(rpc)(request if isinstance(request, bytes) else request.SerializeToString())
    details = {key: value for key, value in caught.value.trailing_metadata() if key == "grpc-status-details-bin"}
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details["grpc-status-details-bin"]).details[0].Unpack(info)
    await goes_on(shop)
    return caught.value.code().name, info.reason, info.metadata["field"], caught.value.details()


async def goes_on(shop):
    answer = await shop.client.recommend("home_for_you", "someone")
    assert answer.slates[0].placement_id == "home_for_you"


def recommend(**placement):
    placements = [PlacementRequest(**{"placement_id": "home_for_you", **placement})]
    return RecommendRequest(context=Context(visitor_id="v"), placements=placements)


def event(**fields):
    usual = {
        "event_id": new_event_id(),
        "event_type": EventType.EVENT_TYPE_VIEW,
        "context": Context(visitor_id="v"),
        "items": [EventItem(item_id="bread")],
    }
    return Event(**{**usual, **fields})


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x08"])
async def test_bytes_that_are_no_message(shop, garbage):
    for rpc in UNARY_RPCS:
        code, reason, _, _ = await fault_of(shop, rpc, garbage)
        assert (code, reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED"), rpc


@pytest.mark.parametrize("rpc", TEXT_FIRST_RPCS)
async def test_text_that_is_not_utf8(shop, rpc):
    code, reason, _, _ = await fault_of(shop, rpc, b"\x0a\x02\xc3\x28")
    assert (code, reason) == ("INVALID_ARGUMENT", "REQUEST_MALFORMED")


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (RecommendRequest(), "FIELD_REQUIRED", "context"),
        (RecommendRequest(context=Context(visitor_id="v")), "FIELD_REQUIRED", "placements"),
        (recommend(page_size=-1), "FIELD_OUT_OF_RANGE", "placements[0].page_size"),
        (recommend(page_size=10**6), "FIELD_OUT_OF_RANGE", "placements[0].page_size"),
        (recommend(placement_id="no_such"), "PLACEMENT_NOT_FOUND", "placements[0].placement_id"),
        (recommend(placement_id="x" * 900_000), "FIELD_OUT_OF_RANGE", "placements[0].placement_id"),
        (recommend(anchor_item_ids=["a"] * 201), "FIELD_OUT_OF_RANGE", "placements[0].anchor_item_ids"),
        (recommend(exclude_item_ids=["a"] * 2_001), "FIELD_OUT_OF_RANGE", "placements[0].exclude_item_ids"),
        (recommend(filter=ItemFilter(min_price=float("nan"))), "FIELD_OUT_OF_RANGE", "placements[0].filter.min_price"),
        (
            RecommendRequest(context=Context(visitor_id="v" * 900_000), placements=recommend().placements),
            "FIELD_OUT_OF_RANGE",
            "context.visitor_id",
        ),
        (
            RecommendRequest(context=Context(visitor_id="v\0"), placements=recommend().placements),
            "FIELD_OUT_OF_RANGE",
            "context.visitor_id",
        ),
        (
            RecommendRequest(
                context=Context(visitor_id="v", cart_item_ids=["a", "b\n"]), placements=recommend().placements
            ),
            "FIELD_OUT_OF_RANGE",
            "context.cart_item_ids[1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_recommend_request(shop, request_, reason, field):
    _, found_reason, found_field, text = await fault_of(shop, RECOMMEND, request_)
    assert (found_reason, found_field) == (reason, field)
    assert 10 < len(text) < 1_100


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 900_000}, "event_id"),
        ({"event_id": "x\n"}, "event_id"),
        ({"context": Context(visitor_id="v", user_id="u\0")}, "context.user_id"),
        ({"items": [EventItem(item_id="x\ty")]}, "items[0].item_id"),
        ({"context": Context(visitor_id="v" * 900_000)}, "context.visitor_id"),
        ({"context": Context()}, "context.visitor_id"),
        ({"event_type": 0}, "event_type"),
        ({"event_type": 99}, "event_type"),
        ({"event_time": Timestamp(seconds=int(time.time()) // 1000)}, "event_time"),
        ({"event_time": Timestamp(seconds=int(time.time()) * 1000)}, "event_time"),
        ({"event_time": Timestamp(seconds=int(time.time()) + 30 * 86_400)}, "event_time"),
        ({"items": []}, "items"),
        ({"items": [EventItem(item_id="")]}, "items[0].item_id"),
        ({"items": [EventItem(item_id="x" * 257)]}, "items[0].item_id"),
        ({"items": [EventItem(item_id="x", quantity=-1)]}, "items[0].quantity"),
        ({"items": [EventItem(item_id="x", price=Money(currency_code="USD", units=-1))]}, "items[0].price"),
        ({"items": [EventItem(item_id="x", price=Money(currency_code="USD", units=2**62))]}, "items[0].price.units"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_event_is_refused_and_its_neighbours_are_taken(shop, bad, field):
    request = event_service_pb2.RecordEventsRequest(events=[event(), event(**bad), event()])
    reply = await shop.channel.unary_unary(EVENTS)(request.SerializeToString())
    first, second, third = event_service_pb2.RecordEventsResponse.FromString(reply).results
    assert first.status == third.status == event_service_pb2.EventResult.STATUS_ACCEPTED
    assert second.status == event_service_pb2.EventResult.STATUS_REJECTED
    assert second.reason in {"FIELD_REQUIRED", "FIELD_OUT_OF_RANGE"}
    assert second.field.startswith(f"events[1].{field}")
    assert second.message
    await goes_on(shop)


async def test_an_event_id_with_another_payload_is_a_conflict(shop):
    first = event()
    other = event(event_id=first.event_id, items=[EventItem(item_id="milk")])
    repeat, conflict = (await shop.client.record([first, first])), (await shop.client.record([other]))
    assert [result.status for result in repeat.results] == [1, 2]
    assert conflict.results[0].reason == "EVENT_ID_CONFLICT"
    await goes_on(shop)


async def test_too_many_and_no_events(shop):
    none = event_service_pb2.RecordEventsRequest()
    many = event_service_pb2.RecordEventsRequest(events=[event()] * 1_001)
    assert (await fault_of(shop, EVENTS, none))[1:3] == ("FIELD_REQUIRED", "events")
    assert (await fault_of(shop, EVENTS, many))[1:3] == ("FIELD_OUT_OF_RANGE", "events")


@pytest.mark.parametrize("rpc", [EVENTS, "/shopkeeper.v1.CatalogService/UpsertItems"])
async def test_a_message_of_five_megabytes_is_refused(shop, rpc):
    code, reason, _, text = await fault_of(shop, rpc, b"\x0a\x00" * 2_500_000)
    assert (code, reason) == ("INVALID_ARGUMENT", "FIELD_OUT_OF_RANGE")
    assert "1,048,576" in text


async def test_a_message_beyond_that_of_imports_is_refused_by_the_transport(shop):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await shop.channel.unary_unary(EVENTS)(b"\x0a\x00" * 5_000_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await goes_on(shop)


async def test_an_empty_catalogue_is_said(shop):
    answer = await shop.client.recommend("home_for_you", "v")
    assert not answer.slates[0].items
    assert "catalog_empty" in answer.degraded


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (Item(), "item_id"),
        (Item(item_id="x" * 257), "item_id"),
        (Item(item_id="x\n"), "item_id"),
        (Item(item_id="x", title="t" * 1_025), "title"),
        (Item(item_id="x", price=Money(currency_code="usd", units=1)), "price.currency_code"),
        (Item(item_id="x", stock_quantity=-1), "stock_quantity"),
        (Item(item_id="x", availability=99), "availability"),
        (Item(item_id="x", promotion_intervals=[PromotionInterval(kind=1)]), "promotion_intervals[0].start_time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_item_is_refused_and_its_neighbour_is_taken(shop, item, field):
    answer = await shop.client.upsert_items([Item(item_id="good"), item])
    assert answer.accepted_count == 1
    assert answer.rejected[0].index == 1
    assert answer.rejected[0].field.startswith(f"items[1].{field}")
    assert answer.rejected[0].message
    assert (await shop.client.item("good")).item_id == "good"


async def test_a_bad_profile_is_refused(shop):
    request = profile_service_pb2.UpsertProfileRequest(profile={"visitor_id": "v\0"})
    _, reason, field, text = await fault_of(shop, "/shopkeeper.v1.ProfileService/UpsertProfile", request)
    assert (reason, field) == ("FIELD_OUT_OF_RANGE", "profile.visitor_id")
    assert r"has the control character '\0'" in text


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        (Placement(placement_id="Not Valid", sources=[SourceUse(source="popular")]), "placement.placement_id"),
        (Placement(placement_id="ok"), "placement.sources"),
        (Placement(placement_id="ok", sources=[SourceUse(source="no_such")]), "placement.sources[0].source"),
        (Placement(placement_id="ok", sources=[SourceUse(source="popular")], mmr_lambda=2.0), "placement.mmr_lambda"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_bad_placement_is_refused(shop, placement, field):
    request = placement_service_pb2.UpsertPlacementRequest(placement=placement)
    fault = await fault_of(shop, "/shopkeeper.v1.PlacementService/UpsertPlacement", request)
    assert fault[2] == field
