"""RPCs as methods of plain services.

A service is an object whose methods are named like the RPCs of its descriptor, in snake case: `GetItem` is `get_item`.
A method takes the request (an async iterator of them where the client streams) and returns the response (or is an async
generator where the server streams). It raises, and never sees gRPC. Methods listed as raw take and give bytes.
"""

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:  # generic in their stubs only
    Handler = grpc.RpcMethodHandler
    Context = grpc.aio.ServicerContext


class Service(Protocol):
    """What a file of `server.services` holds."""

    @property
    def descriptor(self) -> ServiceDescriptor:
        """Service of the contract."""

    @property
    def raw_methods(self) -> Collection[str]:
        """RPCs that take and give bytes."""


class Rpc(NamedTuple):
    """An RPC of the contract and what answers it."""

    name: str
    call: Callable[[Any], Any]
    client_streaming: bool
    server_streaming: bool
    parse: Callable[[bytes], Any] | None
    """Request of bytes; None where the method takes them."""
    serialize: Callable[[Any], bytes] | None
    """Bytes of a response; None where the method gives them."""


def rpcs_of(service: Service) -> list[Rpc]:
    """Return every RPC of the service's descriptor.

    Raises
    ------
    AttributeError : the service has no method for an RPC of its descriptor
    """
    return [_rpc(service, method) for method in service.descriptor.methods]


def python_name(rpc: str) -> str:
    """Return the Python name of an RPC, e.g. `get_item` for `GetItem`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower()


def _rpc(service: Service, method: MethodDescriptor) -> Rpc:
    call = getattr(service, python_name(method.name))
    raw = method.name in service.raw_methods
    parse = None if raw else GetMessageClass(method.input_type).FromString
    serialize = None if raw else GetMessageClass(method.output_type).SerializeToString
    return Rpc(method.name, call, method.client_streaming, method.server_streaming, parse, serialize)
