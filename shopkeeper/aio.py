"""The twin of `shopkeeper.client` for asyncio."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc.aio

from shopkeeper.calls import (
    CHANNEL_OPTIONS,
    WRITE_TIMEOUT_S,
    CallError,
    Stubs,
    call_error,
    event,
    fallback_response,
    new_event_id,
    recommend_request,
    record_request,
)
from shopkeeper.v1 import catalog_service_pb2 as catalog
from shopkeeper.v1 import profile_service_pb2 as profiles
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.event_service_pb2 import RecordEventsResponse
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest, RecommendResponse

__all__ = ["AsyncClient", "CallError", "event", "new_event_id"]


class AsyncClient:
    """Calls with deadlines and retries, over one channel, for one event loop.

    Parameters
    ----------
    target : address of the server, e.g. `localhost:50051`
    timeout_s : time for a recommendation, tries included
    fallback : item ids to show while the server is away; empty raises `CallError` then
    credentials : of the channel; None means plain text
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = 0.5,
        fallback: Sequence[str] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._channel = (
            grpc.aio.secure_channel(target, credentials, CHANNEL_OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(target, CHANNEL_OPTIONS)
        )
        self._timeout_s = timeout_s
        self._fallback = fallback
        self._stubs = Stubs(self._channel)

    async def recommend(
        self, placements: str | PlacementRequest | Sequence[str | PlacementRequest], context: Context | str
    ) -> RecommendResponse:
        """Return one slate a placement; text as context is an anonymous visitor's id.

        Raises
        ------
        CallError : the request is at fault, or the server is away and there is no fallback
        """
        request = recommend_request(placements, context)
        try:
            answer: RecommendResponse = await self._call(
                self._stubs.recommendations.Recommend, request, self._timeout_s
            )
        except CallError as error:
            if not (error.is_away and self._fallback):
                raise
            return fallback_response(request, self._fallback)
        return answer

    async def record(self, events: Sequence[Event]) -> RecordEventsResponse:
        """Return what became of each event; those accepted are on disk."""
        answer: RecordEventsResponse = await self._call(self._stubs.events.RecordEvents, record_request(events))
        return answer

    async def upsert_items(self, items: Sequence[Item]) -> catalog.UpsertItemsResponse:
        """Return how many items were taken and why others were not."""
        request = catalog.UpsertItemsRequest(items=items)
        answer: catalog.UpsertItemsResponse = await self._call(self._stubs.catalog.UpsertItems, request)
        return answer

    async def item(self, item_id: str) -> Item:
        """Return one item."""
        answer: catalog.GetItemResponse = await self._call(
            self._stubs.catalog.GetItem, catalog.GetItemRequest(item_id=item_id)
        )
        return answer.item

    async def upsert_profile(self, profile: profiles.Profile) -> profiles.Profile:
        """Return the profile after the merge."""
        request = profiles.UpsertProfileRequest(profile=profile)
        answer: profiles.UpsertProfileResponse = await self._call(self._stubs.profiles.UpsertProfile, request)
        return answer.profile

    async def profile(self, visitor_id: str) -> profiles.GetProfileResponse:
        """Return what is known about a visitor now."""
        request = profiles.GetProfileRequest(visitor_id=visitor_id)
        answer: profiles.GetProfileResponse = await self._call(self._stubs.profiles.GetProfile, request)
        return answer

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: Callable[..., Any], request: object, timeout_s: float = WRITE_TIMEOUT_S) -> Any:
        try:
            return await method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            raise call_error(error) from error
