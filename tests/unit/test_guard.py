"""What every call meets: errors without their text, deadlines, load, sizes."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.errors import ServiceError
from server.guard import Guard
from server.ports import LogUnavailableError
from server.settings import LimitSettings
from shopkeeper.v1 import profile_service_pb2 as pb
from shopkeeper.v1.profile_service_pb2_grpc import ProfileServiceStub


class Panic(BaseException):
    """Stands for a panic of the engine."""


class FakeService:
    descriptor = pb.DESCRIPTOR.services_by_name["ProfileService"]
    raw_methods = frozenset()

    def __init__(self, error=None, *, is_held=False):
        self.error = error
        self.entered, self.going_on = asyncio.Event(), asyncio.Event()
        if not is_held:
            self.going_on.set()

    async def get_profile(self, request):
        self.entered.set()
        await self.going_on.wait()
        if self.error:
            raise self.error
        return pb.GetProfileResponse(profile=pb.Profile(visitor_id=request.visitor_id))

    async def export_user(self, request):
        yield pb.ExportUserResponse(profile=pb.Profile(visitor_id=request.visitor_id))
        if self.error:
            raise self.error

    upsert_profile = erase_user = get_profile


@asynccontextmanager
async def serving(service, **limits):
    guard = Guard(LimitSettings(**limits))
    server = grpc.aio.server()
    guard.add_to(server, service)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.enable_retries", 0),)) as channel:
        yield channel, guard
    await server.stop(0)


async def failure(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    status = await_status(caught.value)
    if status and status.details:
        status.details[0].Unpack(info)
    return caught.value, info


def await_status(error):
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            return rpc_status.status_pb2.Status.FromString(value)
    return None


def get(channel, **options):
    return ProfileServiceStub(channel).GetProfile(pb.GetProfileRequest(visitor_id="v"), **options)


@pytest.mark.parametrize("error", [ValueError("password=1"), Panic("password=1"), KeyError("password=1")])
async def test_a_fault_of_ours_does_not_leak_its_text(error, capsys):
    async with serving(FakeService(error)) as (channel, _):
        caught, info = await failure(get(channel))
    assert caught.code() is grpc.StatusCode.INTERNAL
    assert "password" not in str(caught)
    assert info.reason == "INTERNAL"
    assert caught.details().split()[-1] in capsys.readouterr().out


async def test_a_fault_in_a_stream_is_mapped_after_what_was_sent():
    async with serving(FakeService(ServiceError("PROFILE_NOT_FOUND", "none"))) as (channel, _):
        stream = ProfileServiceStub(channel).ExportUser(pb.ExportUserRequest(visitor_id="v"))
        assert (await stream.read()).profile.visitor_id == "v"
        caught, info = await failure(stream.read())
    assert caught.code() is grpc.StatusCode.NOT_FOUND
    assert info.reason == "PROFILE_NOT_FOUND"


async def test_the_callers_request_id_comes_back():
    async with serving(FakeService(ServiceError("PROFILE_NOT_FOUND", "none"))) as (channel, _):
        _, info = await failure(get(channel, metadata=(("x-request-id", "mine"),)))
    assert info.metadata["request_id"] == "mine"


async def test_bytes_that_are_no_message_are_the_callers_fault():
    async with serving(FakeService()) as (channel, _):
        raw = channel.unary_unary("/shopkeeper.v1.ProfileService/GetProfile")
        caught, info = await failure(raw(b"\xff\xff\xff"))
        assert (await get(channel)).profile.visitor_id == "v"
    assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert info.reason == "REQUEST_MALFORMED"


async def test_a_call_without_a_deadline_gets_one():
    async with serving(FakeService(is_held=True), default_deadline_ms=50) as (channel, _):
        caught, _ = await failure(get(channel))
    assert caught.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_calls_beyond_the_limit_are_pushed_back():
    service = FakeService(is_held=True)
    async with serving(service, concurrent=1) as (channel, _):
        first = get(channel)
        await service.entered.wait()
        caught, info = await failure(get(channel))
        service.going_on.set()
        assert (await first).profile.visitor_id == "v"
        assert (await get(channel)).profile.visitor_id == "v"
    assert caught.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info.reason == "OVERLOADED"
    assert int(dict(caught.trailing_metadata())["grpc-retry-pushback-ms"]) > 0


async def test_a_request_beyond_the_limit_says_the_limit():
    async with serving(FakeService(), message_bytes=1024) as (channel, _):
        stub = ProfileServiceStub(channel)
        caught, info = await failure(stub.GetProfile(pb.GetProfileRequest(visitor_id="v" * 2000)))
    assert caught.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1,024" in caught.details()
    assert info.reason == "FIELD_OUT_OF_RANGE"


async def test_a_log_that_is_away_is_remembered():
    async with serving(FakeService(LogUnavailableError("disk /secret is full"))) as (channel, guard):
        assert guard.seconds_since_log_fault == float("inf")
        caught, info = await failure(get(channel))
    assert caught.code() is grpc.StatusCode.UNAVAILABLE
    assert "/secret" not in caught.details()
    assert info.reason == "LOG_UNAVAILABLE"
    assert guard.seconds_since_log_fault < 60
