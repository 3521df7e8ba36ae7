"""The outermost ring of the server: errors, deadlines, load and metrics of every RPC of the contract."""

import asyncio
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from core_rs import EngineError
from server import errors, telemetry
from server.ports import LogUnavailableError
from server.rpc import Context, Handler, Rpc, Service, rpcs_of
from server.settings import LimitSettings

_log = structlog.get_logger()

_SLOW_METHODS: Final = frozenset(
    {"ImportEvents", "ImportItems", "PublishModel", "ActivateModel", "StartTrial", "EraseUser"}
)
_INSTANT_METHODS: Final = frozenset({"Recommend"})
"""Methods that wait for the decisions before them and nothing else; a timer would cost more than it could save."""
_PUSHBACK_MS: Final = (100, 400)
_PASS_THROUGH: Final = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit, grpc.aio.AbortError)


_HANDLERS: Final[Mapping[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Guard:
    """Ring through which every call passes.

    It parses typed requests itself, so that bytes that are no message get INVALID_ARGUMENT; turns every exception into
    a status without its text; gives quick calls without a deadline one; refuses calls beyond the limit with a pushback;
    and measures.

    Parameters
    ----------
    limits : bytes of a request, calls at once, deadline of calls that bring none
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._active = 0
        self._log_fault_time = -math.inf
        telemetry.RPC_ACTIVE.set_function(lambda: self._active)

    @property
    def seconds_since_log_fault(self) -> float:
        """Seconds since a call last failed because of the log; infinite if none did."""
        return time.monotonic() - self._log_fault_time

    def add_to(self, server: grpc.aio.Server, service: Service) -> None:
        """Register every RPC of a service with the ring around it.

        Raises
        ------
        AttributeError : the service has no method for an RPC of its descriptor
        """
        handlers = {rpc.name: self._handler(rpc) for rpc in rpcs_of(service)}
        server.add_registered_method_handlers(service.descriptor.full_name, handlers)

    def _handler(self, rpc: Rpc) -> Handler:
        around = self._stream if rpc.server_streaming else self._unary
        make = _HANDLERS[rpc.client_streaming, rpc.server_streaming]
        return make(around(rpc, self._parser(rpc)), response_serializer=rpc.serialize)

    def _unary(self, rpc: Rpc, parse: Callable[[Any], Any]) -> Callable[..., Awaitable[Any]]:
        untimed = rpc.name in _SLOW_METHODS | _INSTANT_METHODS
        deadline_s = None if untimed else self._limits.default_deadline_ms / 1000
        seconds = telemetry.RPC_SECONDS.labels(rpc.name)

        async def unary(request: Any, context: Context) -> Any:
            started = time.perf_counter()
            self._active += 1
            try:
                self._admit()
                answer = rpc.call(parse(request))
                if deadline_s is None or context.time_remaining() is not None:
                    return await answer
                async with asyncio.timeout(deadline_s):
                    return await answer
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is a BaseException
                await self._abort(rpc.name, error, context)
            finally:
                self._active -= 1
                seconds.observe(time.perf_counter() - started)

        return unary

    def _stream(self, rpc: Rpc, parse: Callable[[Any], Any]) -> Callable[..., AsyncIterator[Any]]:
        seconds = telemetry.RPC_SECONDS.labels(rpc.name)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            started = time.perf_counter()
            self._active += 1
            try:
                self._admit()
                async for response in rpc.call(parse(request)):
                    yield response
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is a BaseException
                await self._abort(rpc.name, error, context)
            finally:
                self._active -= 1
                seconds.observe(time.perf_counter() - started)

        return stream

    def _admit(self) -> None:
        if self._active > self._limits.concurrent:
            raise errors.ServiceError("OVERLOADED", "the server takes no more calls now; retry after the pushback")

    def _parser(self, rpc: Rpc) -> Callable[[Any], Any]:
        """Return what makes a request of bytes, or an iterator of requests of an iterator of bytes."""

        def parse(data: bytes) -> Any:
            try:
                return rpc.parse(data) if rpc.parse else data
            except DecodeError:
                text = "bytes are not a valid message; send the message of shopkeeper.v1"
                raise errors.ServiceError("REQUEST_MALFORMED", text) from None

        def parse_one(data: bytes) -> Any:
            if len(data) > self._limits.message_bytes:
                text = f"request has {len(data):,} bytes; send at most {self._limits.message_bytes:,}, or use an import"
                raise errors.ServiceError("FIELD_OUT_OF_RANGE", text)
            return parse(data)

        async def parse_each(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for data in stream:
                yield parse(data)

        return parse_each if rpc.client_streaming else parse_one

    async def _abort(self, method: str, error: BaseException, context: Context) -> NoReturn:
        """End the call with the status of `error`; raise what must pass."""
        if isinstance(error, _PASS_THROUGH):
            raise error
        if isinstance(error, LogUnavailableError):
            self._log_fault_time = time.monotonic()
        status = rpc_status.to_status(_status_of(method, error, _request_id(context)))
        telemetry.RPC_ERRORS.labels(method, status.code.name).inc()
        metadata = status.trailing_metadata or ()
        if status.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            pushback_ms = random.randint(*_PUSHBACK_MS)  # noqa: S311 - spreads the retries
            metadata = (*metadata, ("grpc-retry-pushback-ms", str(pushback_ms)))
        await context.abort(status.code, status.details, trailing_metadata=metadata)


def _status_of(method: str, error: BaseException, request_id: str) -> status_pb2.Status:
    if isinstance(error, LogUnavailableError):
        _log.error("log unavailable", method=method, request_id=request_id, error=str(error))
        error = errors.ServiceError("LOG_UNAVAILABLE", "the log cannot be read or written now; retry later")
    if isinstance(error, EngineError | errors.ServiceError) and not errors.is_bug(error):
        return errors.to_status(error, request_id)
    if isinstance(error, TimeoutError):
        return status_pb2.Status(code=grpc.StatusCode.DEADLINE_EXCEEDED.value[0], message="took longer than allowed")
    error_id = uuid.uuid4().hex
    _log.error("call failed", method=method, error_id=error_id, request_id=request_id, exc_info=error)
    text = f"fault of the server; its log explains error id {error_id}"
    return errors.status("INTERNAL", text, request_id=request_id)


def _request_id(context: Context) -> str:
    """Return the id the caller gave as metadata `x-request-id`, else a new one."""
    for key, value in context.invocation_metadata() or ():
        if key == "x-request-id":
            return str(value)[:64]
    return uuid.uuid4().hex
