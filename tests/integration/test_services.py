"""The services together, over gRPC: what goes in is what comes out."""

import asyncio
import threading
from contextlib import closing

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import REGISTRY

from core_rs import Engine
from server.adapters.outbox import SqliteOutbox
from server.app import App
from server.defaults import PLACEMENTS
from server.kinds import erased_user
from server.ports import Kept, LogUnavailableError, NewRecord
from shopkeeper.calls import event
from shopkeeper.v1 import catalog_service_pb2 as catalog
from shopkeeper.v1 import event_service_pb2 as events
from shopkeeper.v1 import placement_service_pb2 as placements
from shopkeeper.v1 import profile_service_pb2 as profiles
from shopkeeper.v1 import recommendation_service_pb2 as recommendations
from shopkeeper.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shopkeeper.v1.common_pb2 import Consent, ConsentPurpose, Context, Money
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.event_service_pb2_grpc import EventServiceStub
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Control
from shopkeeper.v1.placement_service_pb2_grpc import PlacementServiceStub
from shopkeeper.v1.profile_service_pb2_grpc import ProfileServiceStub
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from shopkeeper.v1.record_pb2 import RecordKind
from tests.table_shop import wait_until

VIEW, PURCHASE = EventType.EVENT_TYPE_VIEW, EventType.EVENT_TYPE_PURCHASE


@pytest.fixture
async def stocked(shop):
    names = ["bread", "butter", "cheese", "milk", "wine"]
    await shop.client.upsert_items([Item(item_id=name, title=name, category_path=["FOOD"]) for name in names])
    return shop


def code_of(caught):
    return caught.value.code()


async def test_items_are_read_as_written_and_changed_by_mask(stocked):
    stub = CatalogServiceStub(stocked.channel)
    cheaper = Item(item_id="milk", price=Money(currency_code="USD", units=2))
    await stub.UpsertItems(catalog.UpsertItemsRequest(items=[cheaper], update_mask=FieldMask(paths=["price"])))
    milk = (await stub.GetItem(catalog.GetItemRequest(item_id="milk"))).item
    assert (milk.title, milk.price.units) == ("milk", 2)
    found = await stub.BatchGetItems(catalog.BatchGetItemsRequest(item_ids=["wine", "gin", "bread"]))
    assert [item.item_id for item in found.items] == ["wine", "bread"]
    assert list(found.missing_item_ids) == ["gin"]


async def test_an_older_message_about_an_item_loses(stocked):
    stub = CatalogServiceStub(stocked.channel)
    old = catalog.UpsertItemsRequest(
        items=[Item(item_id="milk", title="old")], set_time=Timestamp(seconds=1_600_000_000)
    )
    await stub.UpsertItems(old)
    assert (await stocked.client.item("milk")).title == "milk"


@pytest.mark.parametrize(
    "set_time",
    [Timestamp(seconds=2**60), Timestamp(seconds=0), Timestamp(seconds=1_600_000_000_000), Timestamp(nanos=-1)],
    ids=["year 36e9", "1970", "milliseconds", "negative"],
)
async def test_a_set_time_that_cannot_be_is_refused(shop, set_time):
    request = catalog.UpsertItemsRequest(items=[Item(item_id="milk")], set_time=set_time)
    with pytest.raises(grpc.aio.AioRpcError, match=r"`set_time` is .* leave it out") as caught:
        await CatalogServiceStub(shop.channel).UpsertItems(request)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_decision_on_its_way_does_not_outlive_an_erasure(stocked, monkeypatch):
    log = stocked.app._log
    append, decisions = log.append, [NewRecord(RecordKind.RECORD_KIND_DECISION, "v", "", b"")]

    async def append_beside_a_decision(records, time_ms):
        statuses = await append(records, time_ms)
        if decisions:
            log.append_later([decisions.pop()], time_ms + 1)
        return statuses

    monkeypatch.setattr(log, "append", append_beside_a_decision)
    await ProfileServiceStub(stocked.channel).EraseUser(profiles.EraseUserRequest(visitor_id="v"))
    await append([], 0)
    assert not decisions
    assert {record.kind for record in log.records_of("v")} == {RecordKind.RECORD_KIND_ERASURE}


async def test_prometheus_sees_what_the_engine_knows(stocked):
    known = {
        kind: REGISTRY.get_sample_value("shopkeeper_engine_entries", {"kind": kind}) for kind in ("items", "controls")
    }
    assert known == {"items": stocked.app.engine.stats()["items"], "controls": 0}
    assert known["items"] > 0


async def test_pages_of_items_cover_the_catalogue_once(stocked):
    stub = CatalogServiceStub(stocked.channel)
    seen, token = [], ""
    while True:
        page = await stub.ListItems(catalog.ListItemsRequest(page_size=2, page_token=token))
        seen += [item.item_id for item in page.items]
        if not (token := page.next_page_token):
            break
    assert sorted(seen) == ["bread", "butter", "cheese", "milk", "wine"]


async def test_a_deleted_item_is_gone_and_not_shown(stocked):
    stub = CatalogServiceStub(stocked.channel)
    await stocked.client.record([event(PURCHASE, "v", ["wine"])])
    await stub.DeleteItem(catalog.DeleteItemRequest(item_id="wine"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetItem(catalog.GetItemRequest(item_id="wine"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    answer = await stocked.client.recommend("home_for_you", "v")
    assert "wine" not in [item.item_id for item in answer.slates[0].items]


async def test_an_event_is_in_the_next_answer(stocked):
    answer = await stocked.client.record([event(VIEW, "v", ["cheese"])])
    assert answer.results[0].status == events.EventResult.STATUS_ACCEPTED
    answer = await stocked.client.recommend("recently_viewed", "v")
    assert answer.slates[0].items[0].item_id == "cheese"


async def test_imports_count_and_sample(stocked):
    stub = EventServiceStub(stocked.channel)
    good, unjoined = event(PURCHASE, "v", ["milk"]), event(PURCHASE, "v", ["gin"])
    good.event_time.FromJsonString("2015-03-01T10:00:00Z")
    bad = event(PURCHASE, "", ["milk"])

    async def batches():
        yield events.ImportEventsRequest(events=[good, unjoined])
        yield events.ImportEventsRequest(events=[good, bad])

    answer = await stub.ImportEvents(batches())
    assert (answer.accepted_count, answer.duplicate_count, answer.rejected_count) == (2, 1, 1)
    assert (answer.joined_count, answer.unjoined_count) == (2, 1)
    assert answer.error_samples[0].field.startswith("events[3].context")


async def test_imported_items_count_from_the_start_of_the_stream(shop):
    async def batches():
        yield catalog.ImportItemsRequest(items=[Item(item_id="a"), Item(item_id="b")])
        yield catalog.ImportItemsRequest(items=[Item(item_id="c"), Item()])

    answer = await CatalogServiceStub(shop.channel).ImportItems(batches())
    assert (answer.accepted_count, answer.rejected_count) == (3, 1)
    assert answer.error_samples[0].index == 3


async def test_default_placements_are_there_once(shop):
    listed = await PlacementServiceStub(shop.channel).ListPlacements(placements.ListPlacementsRequest())
    names = [placement.placement_id for placement in listed.placements]
    assert len(names) == len(PLACEMENTS)
    assert names == sorted(set(names))
    assert {"home_for_you", "home_discover", "cart_addons", "email_picks"} <= set(names)


async def test_a_placement_that_changed_meanwhile_is_not_overwritten(shop):
    stub = PlacementServiceStub(shop.channel)
    mine = (await stub.GetPlacement(placements.GetPlacementRequest(placement_id="home_new"))).placement
    theirs = (await stub.GetPlacement(placements.GetPlacementRequest(placement_id="home_new"))).placement
    theirs.page_size = 3
    kept = (await stub.UpsertPlacement(placements.UpsertPlacementRequest(placement=theirs))).placement
    assert kept.page_size == 3
    assert kept.etag != mine.etag
    for change in (
        stub.UpsertPlacement(placements.UpsertPlacementRequest(placement=mine)),
        stub.DeletePlacement(placements.DeletePlacementRequest(placement_id="home_new", etag=mine.etag)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change
        assert code_of(caught) is grpc.StatusCode.ABORTED
    await stub.DeletePlacement(placements.DeletePlacementRequest(placement_id="home_new", etag=kept.etag))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetPlacement(placements.GetPlacementRequest(placement_id="home_new"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


async def test_of_two_workers_that_change_the_same_placement_one_wins(shop, settings):
    other = App(settings, index=1)
    address = await other.start()
    async with grpc.aio.insecure_channel(address) as channel:
        stubs = [PlacementServiceStub(shop.channel), PlacementServiceStub(channel)]
        mine = (await stubs[0].GetPlacement(placements.GetPlacementRequest(placement_id="home_new"))).placement
        for size in range(3, 9):
            asked = []
            for number in range(6):
                mine.page_size = 10 * size + number
                asked.append(stubs[number % 2].UpsertPlacement(placements.UpsertPlacementRequest(placement=mine)))
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            (kept,) = [outcome.placement for outcome in outcomes if not isinstance(outcome, grpc.aio.AioRpcError)]
            lost = [outcome.code() for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
            assert lost == [grpc.StatusCode.ABORTED] * 5
            mine = kept
    await other.stop()


async def test_a_batch_goes_on_after_a_bad_request(stocked):
    good = recommendations.RecommendRequest(
        context=Context(visitor_id="v"), placements=[recommendations.PlacementRequest(placement_id="email_picks")]
    )
    bad = recommendations.RecommendRequest(context=Context(visitor_id="v"))
    request = recommendations.BatchRecommendRequest(requests=[good, bad, good])
    answers = [answer async for answer in RecommendationServiceStub(stocked.channel).BatchRecommend(request)]
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert [bool(answer.error) for answer in answers] == [False, True, False]
    assert "FIELD_REQUIRED" in answers[1].error


async def test_a_control_counts_where_it_says_and_a_misspelt_placement_is_refused(stocked):
    stub = PlacementServiceStub(stocked.channel)
    control = Control(control_id="no-wine", placement_ids=["home_trending"], exclude=Control.Exclude())
    control.items.item_ids.append("wine")
    await stub.UpsertControl(placements.UpsertControlRequest(control=control))

    async def shown(placement_id):
        slates = (await stocked.client.recommend([placement_id], "v")).slates
        return {item.item_id for item in slates[0].items}

    assert "wine" not in await shown("home_trending")
    assert "wine" in await shown("home_new")
    control.placement_ids.append("home_trendign")
    with pytest.raises(grpc.aio.AioRpcError, match=r"placement_ids\[1\]` names `home_trendign`") as caught:
        await stub.UpsertControl(placements.UpsertControlRequest(control=control))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


async def test_explain_tells_what_recommend_answers(stocked):
    await stocked.client.record([event(PURCHASE, "v", ["milk", "bread"])])
    request = recommendations.RecommendRequest(
        request_id="r",
        context=Context(visitor_id="v"),
        placements=[recommendations.PlacementRequest(placement_id="home_for_you")],
    )
    answer = await RecommendationServiceStub(stocked.channel).Explain(recommendations.ExplainRequest(request=request))
    shown = [item.item_id for item in answer.response.slates[0].items]
    assert shown
    assert [item.item_id for item in answer.traces[0].items] == shown
    assert answer.traces[0].stages


async def test_a_visitor_is_exported_then_erased_with_the_anonymous_past(stocked):
    await stocked.client.record([event(VIEW, "cookie", ["milk"])])
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    await stocked.client.upsert_profile(
        profiles.Profile(visitor_id="ann", traits=[profiles.Trait(name="size", value="xl")])
    )
    stub = ProfileServiceStub(stocked.channel)
    exported = [record async for record in stub.ExportUser(profiles.ExportUserRequest(visitor_id="ann"))]
    assert exported[0].profile.traits[0].value == "xl"
    assert [record.event.items[0].item_id for record in exported[1:]] == ["cheese", "milk"]
    answer = await stub.EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    assert answer.complete_time.seconds > 0
    for visitor_id in ("ann", "cookie"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetProfile(profiles.GetProfileRequest(visitor_id=visitor_id))
        assert code_of(caught) is grpc.StatusCode.NOT_FOUND
        left = [record async for record in stub.ExportUser(profiles.ExportUserRequest(visitor_id=visitor_id))]
        assert left == []


async def test_a_browser_keeps_what_it_denied_until_its_user_is_erased(stocked):
    denial = Consent(purpose=ConsentPurpose.CONSENT_PURPOSE_TRAINING, granted=False)
    await stocked.client.upsert_profile(profiles.Profile(visitor_id="cookie", consents=[denial]))
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    stub = ProfileServiceStub(stocked.channel)
    for visitor_id in ("ann", "cookie"):
        answer = await stub.GetProfile(profiles.GetProfileRequest(visitor_id=visitor_id))
        assert (answer.profile.visitor_id, list(answer.profile.consents)) == (visitor_id, [denial])
    exported = [record async for record in stub.ExportUser(profiles.ExportUserRequest(visitor_id="ann"))]
    assert [record.profile.visitor_id for record in exported] == ["ann", "cookie", ""], "two profiles and an event"
    await stub.EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetProfile(profiles.GetProfileRequest(visitor_id="cookie"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


async def test_what_a_user_took_over_outlives_its_browser_and_a_rebuild(stocked):
    stocked.app._statements.stop()  # the erasure itself records what binds others
    denial = Consent(purpose=ConsentPurpose.CONSENT_PURPOSE_PERSONALIZATION, granted=False)
    await stocked.client.upsert_profile(profiles.Profile(visitor_id="cookie", consents=[denial]))
    logins = [event(VIEW, Context(visitor_id="cookie", user_id=user), ["cheese"]) for user in ("ann", "bob", "bob")]
    for _ in range(2):
        await stocked.client.record(logins)
    log = stocked.app._log
    await ProfileServiceStub(stocked.channel).EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    assert sorted(record.kind for record in log.records_of("bob")) == [RecordKind.RECORD_KIND_EVENT] * 2 + [
        RecordKind.RECORD_KIND_STATED
    ]
    engine = Engine()
    engine.apply([(record.offset, record.kind, record.time_ms, record.payload) for record in log.read(0, 1_000)])
    rebuilt = profiles.GetProfileResponse.FromString(engine.profile("bob"))
    assert list(rebuilt.profile.consents) == [denial]


async def test_a_server_records_by_itself_what_binds_a_user(stocked):
    denial = Consent(purpose=ConsentPurpose.CONSENT_PURPOSE_TRAINING, granted=False)
    await stocked.client.upsert_profile(profiles.Profile(visitor_id="cookie", consents=[denial]))
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    log = stocked.app._log

    def is_recorded() -> bool:
        return RecordKind.RECORD_KIND_STATED in {record.kind for record in log.records_of("ann")}

    await asyncio.to_thread(wait_until, is_recorded)


async def test_erasure_reaches_the_anonymous_id_of_a_login_that_was_trimmed(stocked):
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    await stocked.client.record([event(VIEW, "cookie", ["milk"])])
    log = stocked.app._log
    with closing(SqliteOutbox(log._path)) as outbox:
        assert outbox.trim(Kept(2**60, range(2**60, 2**60)), log.last_offset() - 1) > 0
    assert not list(log.records_of("ann"))
    await (stub := ProfileServiceStub(stocked.channel)).EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetProfile(profiles.GetProfileRequest(visitor_id="cookie"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND
    told = {(record.kind, erased_user(record.payload)) for record in log.records_of("cookie")}
    assert told == {(RecordKind.RECORD_KIND_ERASURE, "ann")}


async def test_an_erasure_that_was_interrupted_is_whole_when_it_is_repeated(stocked, monkeypatch):
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    await stocked.client.record([event(VIEW, "cookie", ["milk"])])
    log, stub = stocked.app._log, ProfileServiceStub(stocked.channel)
    erase = log.erase
    with monkeypatch.context() as patch:
        erased = []

        def once(key: str) -> int:
            if erased:
                raise LogUnavailableError("the disk is busy")
            erased.append(key)
            return int(erase(key))

        patch.setattr(log, "erase", once)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    assert code_of(caught) is grpc.StatusCode.UNAVAILABLE
    await stub.EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    for key in ("ann", "cookie"):
        assert {record.kind for record in log.records_of(key)} == {RecordKind.RECORD_KIND_ERASURE}


async def test_an_erasure_goes_on_though_its_client_leaves(stocked, monkeypatch):
    await stocked.client.record([event(VIEW, Context(visitor_id="cookie", user_id="ann"), ["cheese"])])
    log, begun, left = stocked.app._log, threading.Event(), threading.Event()
    erase = log.erase

    def slowly(key: str) -> int:
        begun.set()
        left.wait(60)
        return int(erase(key))

    monkeypatch.setattr(log, "erase", slowly)
    call = ProfileServiceStub(stocked.channel).EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    assert await asyncio.to_thread(begun.wait, 60)
    call.cancel()
    left.set()

    def is_gone() -> bool:
        return {record.kind for key in ("ann", "cookie") for record in log.records_of(key)} == {
            RecordKind.RECORD_KIND_ERASURE
        }

    await asyncio.to_thread(wait_until, is_gone)


async def test_a_user_named_in_an_event_of_another_is_neither_shown_nor_erased_with_that_one(stocked):
    await stocked.client.record([event(VIEW, Context(user_id="bob"), ["milk"])])
    await stocked.client.record([event(VIEW, Context(visitor_id="bob", user_id="ann"), ["cheese"])])
    stub = ProfileServiceStub(stocked.channel)
    shown = [answer async for answer in stub.ExportUser(profiles.ExportUserRequest(visitor_id="ann"))]
    assert {answer.profile.visitor_id for answer in shown} == {"ann", ""}
    assert [answer.event.items[0].item_id for answer in shown if answer.HasField("event")] == ["cheese"]
    await stub.EraseUser(profiles.EraseUserRequest(visitor_id="ann"))
    kept = await stub.GetProfile(profiles.GetProfileRequest(visitor_id="bob"))
    assert [one.item_id for one in kept.live_state.recent] == ["milk"]


async def test_health_knows_every_service(shop):
    stub = health_pb2_grpc.HealthStub(shop.channel)
    for name in ("", "shopkeeper.v1.EventService", "shopkeeper.v1.RecommendationService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
