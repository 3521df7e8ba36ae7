"""The clients: retries, errors, and what is shown while the server is away."""

import doctest
import uuid
from contextlib import asynccontextmanager

import grpc
import pytest

from server.errors import ServiceError
from server.guard import Guard
from server.settings import LimitSettings
from shopkeeper import calls, client
from shopkeeper.aio import AsyncClient
from shopkeeper.calls import fallback_response, new_event_id, recommend_request, record_request
from shopkeeper.client import CallError, Client
from shopkeeper.v1 import event_service_pb2 as pb
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest


class Flaky:
    descriptor = pb.DESCRIPTOR.services_by_name["EventService"]
    raw_methods = frozenset()

    def __init__(self, *errors):
        self.errors = list(errors)
        self.event_ids = []

    async def record_events(self, request):
        self.event_ids.append(request.events[0].event_id)
        if self.errors:
            raise self.errors.pop(0)
        return pb.RecordEventsResponse(results=[pb.EventResult(status=pb.EventResult.STATUS_ACCEPTED)])

    import_events = record_events


@asynccontextmanager
async def client_of(service):
    server = grpc.aio.server()
    Guard(LimitSettings()).add_to(server, service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}") as shop:
        yield shop
    await server.stop(0)


@pytest.mark.parametrize("reason", ["LOG_UNAVAILABLE", "OVERLOADED"])
async def test_a_retry_sends_the_same_event_id(reason):
    service = Flaky(ServiceError(reason, "later"))
    async with client_of(service) as shop:
        answer = await shop.record([Event()])
    assert answer.results[0].status == pb.EventResult.STATUS_ACCEPTED
    assert len(service.event_ids) == 2
    assert len(set(service.event_ids)) == 1
    assert uuid.UUID(service.event_ids[0]).version == 7


async def test_a_fault_of_the_caller_is_not_tried_again_and_typed():
    service = Flaky(ServiceError("FIELD_REQUIRED", "`events` is required", field="events"))
    async with client_of(service) as shop:
        with pytest.raises(CallError) as caught:
            await shop.record([Event()])
    assert len(service.event_ids) == 1
    assert (caught.value.reason, caught.value.field) == ("FIELD_REQUIRED", "events")
    assert caught.value.status is grpc.StatusCode.INVALID_ARGUMENT
    assert not caught.value.is_away


async def test_a_given_event_id_is_kept():
    assert record_request([Event(event_id="mine")]).events[0].event_id == "mine"


def test_the_fallback_list_is_shown_while_the_server_is_away():
    with Client("127.0.0.1:1", timeout_s=0.3, fallback=["a", "b"]) as shop:
        answer = shop.recommend("home_for_you", "v")
    assert [item.item_id for item in answer.slates[0].items] == ["a", "b"]
    assert list(answer.degraded) == ["client_fallback"]


def test_without_a_fallback_list_the_error_is_raised():
    with Client("127.0.0.1:1", timeout_s=0.3) as shop, pytest.raises(CallError) as caught:
        shop.recommend("home_for_you", "v")
    assert caught.value.is_away


def test_the_fallback_list_repeats_nothing_and_hides_what_is_excluded():
    request = recommend_request(
        [
            PlacementRequest(placement_id="one", page_size=2, exclude_item_ids=["a"]),
            PlacementRequest(placement_id="two"),
        ],
        "v",
    )
    answer = fallback_response(request, ["a", "b", "b", "c", "d"])
    assert [[item.item_id for item in slate.items] for slate in answer.slates] == [["b", "c"], ["a", "d"]]


@pytest.mark.parametrize("module", [calls, client])
def test_the_examples_run(module):
    failed, attempted = doctest.testmod(module)
    assert not failed
    assert attempted


def test_event_ids_sort_by_time():
    ids = [new_event_id(time_ms) for time_ms in range(1_700_000_000_000, 1_700_000_000_100)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 100
