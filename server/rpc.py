"""gRPC handlers made from plain services.

A service is an object whose methods are named like the RPCs of its descriptor, in snake case: `GetItem` is `get_item`.
A method takes the request (an async iterator of them where the client streams) and returns the response (or is an async
generator where the server streams). It raises, and never sees gRPC. Methods listed as raw take and give bytes.
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:  # generic in their stubs only
    Handler = grpc.RpcMethodHandler
    Context = grpc.aio.ServicerContext

HANDLER_TYPES: Final[Mapping[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Service(Protocol):
    """What a file of `server.services` holds."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """Service of the contract."""

    @property
    def raw_methods(self) -> Collection[str]:
        """RPCs that take and give bytes."""


def handler_of(service: Service) -> grpc.GenericRpcHandler:
    """Return the handler of every RPC of the service's descriptor.

    Raises
    ------
    AttributeError : the service has no method for an RPC of its descriptor
    """
    handlers = {method.name: _method_handler(service, method) for method in service.descriptor.methods}
    return grpc.method_handlers_generic_handler(service.descriptor.full_name, handlers)


def python_name(rpc: str) -> str:
    """Return the Python name of an RPC, e.g. `get_item` for `GetItem`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()


def _method_handler(service: Service, method: MethodDescriptor) -> Handler:
    call = getattr(service, python_name(method.name))

    async def unary(request: object, _context: object) -> object:
        return await call(request)

    async def stream(request: object, _context: object) -> AsyncIterator[object]:
        async for response in call(request):
            yield response

    make = HANDLER_TYPES[method.client_streaming, method.server_streaming]
    behaviour = stream if method.server_streaming else unary
    if method.name in service.raw_methods:
        return make(behaviour)
    return make(
        behaviour,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )
