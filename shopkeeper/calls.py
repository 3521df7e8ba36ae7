"""What both clients do alike: requests, retries, errors, and the list shown while the server is away."""

import json
import secrets
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from shopkeeper.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.event_service_pb2 import RecordEventsRequest
from shopkeeper.v1.event_service_pb2_grpc import EventServiceStub
from shopkeeper.v1.profile_service_pb2_grpc import ProfileServiceStub
from shopkeeper.v1.recommendation_service_pb2 import (
    PlacementRequest,
    Reason,
    RecommendedItem,
    RecommendRequest,
    RecommendResponse,
    Slate,
)
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

FALLBACK: Final = "client_fallback"
"""Entry of `degraded` when the answer is the client's own list."""

_SERVICE_CONFIG: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}

CHANNEL_OPTIONS: Final = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""Five tries with jitter, or when the server says; fewer while most calls fail."""

WRITE_TIMEOUT_S: Final = 10.0
"""Time for calls that change something; a page waits for none of them."""

_AWAY: Final = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
_DEFAULT_PAGE_SIZE: Final = 10


class CallError(Exception):
    """Call that failed.

    Parameters
    ----------
    status : gRPC status
    reason : name of `ErrorReason` without its prefix; empty where the server gave none
    field : field at fault; empty where none is
    message : what is wrong and how to mend it
    """

    def __init__(self, status: grpc.StatusCode, reason: str, field: str, message: str) -> None:
        super().__init__(f"{reason or status.name}: {message}")
        self.status = status
        self.reason = reason
        self.field = field

    @property
    def is_away(self) -> bool:
        """Whether the server could not answer in time, so that a list of one's own is the better page."""
        return self.status in _AWAY


class Stubs:
    """Services that a client calls.

    Parameters
    ----------
    channel : of `grpc` or of `grpc.aio`
    """

    def __init__(self, channel: Any) -> None:
        self.recommendations = RecommendationServiceStub(channel)
        self.events = EventServiceStub(channel)
        self.catalog = CatalogServiceStub(channel)
        self.profiles = ProfileServiceStub(channel)


def new_event_id(time_ms: int | None = None) -> str:
    """Return a UUIDv7, which sorts by time.

    >>> new_event_id(0) < new_event_id(1)
    True
    """
    time_ms = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    bits = time_ms << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=bits))


def event(
    event_type: "EventType.ValueType",
    context: Context | str,
    item_ids: Iterable[str] = (),
    *,
    attribution_token: str = "",
) -> Event:
    """Return an event that happens now.

    >>> viewed = event(EventType.EVENT_TYPE_VIEW, "visitor-1", ["bread"])
    >>> viewed.context.visitor_id, [line.item_id for line in viewed.items], len(viewed.event_id)
    ('visitor-1', ['bread'], 36)
    """
    made = Event(
        event_id=new_event_id(),
        event_type=event_type,
        context=context_of(context),
        items=[EventItem(item_id=item_id) for item_id in item_ids],
        attribution_token=attribution_token,
    )
    made.event_time.GetCurrentTime()
    return made


def context_of(context: Context | str) -> Context:
    """Return the context; text is an anonymous visitor's id."""
    return Context(visitor_id=context) if isinstance(context, str) else context


def record_request(events: Sequence[Event]) -> RecordEventsRequest:
    """Return the request, in which every event has an id before the first try, so that a retry is harmless."""
    request = RecordEventsRequest(events=events)
    for one in request.events:
        one.event_id = one.event_id or new_event_id()
    return request


def recommend_request(
    placements: str | PlacementRequest | Sequence[str | PlacementRequest], context: Context | str
) -> RecommendRequest:
    """Return the request for one or several placements."""
    several = [placements] if isinstance(placements, str | PlacementRequest) else placements
    return RecommendRequest(
        request_id=new_event_id(),
        context=context_of(context),
        placements=[PlacementRequest(placement_id=one) if isinstance(one, str) else one for one in several],
    )


def fallback_response(request: RecommendRequest, item_ids: Sequence[str]) -> RecommendResponse:
    """Return the client's own answer: its list in every placement, without what is excluded and without repeats."""
    rest = list(dict.fromkeys(item_ids))
    response = RecommendResponse(request_id=request.request_id, degraded=[FALLBACK])
    for placement in request.placements:
        hidden = {*placement.exclude_item_ids, *placement.anchor_item_ids}
        shown = [item_id for item_id in rest if item_id not in hidden][: placement.page_size or _DEFAULT_PAGE_SIZE]
        rest = [item_id for item_id in rest if item_id not in shown]
        items = [RecommendedItem(item_id=one, reason=Reason.REASON_FILL, propensity=1.0) for one in shown]
        response.slates.append(Slate(placement_id=placement.placement_id, items=items))
    return response


def call_error(error: grpc.RpcError) -> CallError:
    """Return the typed error of a failed call."""
    info = error_details_pb2.ErrorInfo()
    metadata: Any = error.trailing_metadata()
    for key, value in metadata or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                detail.Unpack(info)
    return CallError(error.code(), info.reason, info.metadata.get("field", ""), error.details() or "")
