"""What the shop states about a visitor, what is known, and forgetting it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from itertools import islice
from typing import Final

import core_rs
from core_rs import Engine, NotFoundError
from server import kinds
from server.errors import checked_id, required
from server.ports import Clock, EventLog, LogRecord, LogUnavailableError, NewRecord
from server.workers.statements import statement_records
from shopkeeper.v1 import profile_service_pb2 as pb
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE, RECORD_KIND_EVENT, RECORD_KIND_PROFILE

_CHUNK: Final = 500


class ProfileService:
    """Upsert and get profiles; export profile and events of a visitor, erase everything kept about it.

    Parameters
    ----------
    engine : profiles and live state as served
    log : where changes go, and what is exported and erased
    clock : time of a change
    forgotten_after : time by which no store has what was erased; None where one keeps it for ever
    """

    descriptor = pb.DESCRIPTOR.services_by_name["ProfileService"]
    raw_methods = frozenset[str]()

    def __init__(self, engine: Engine, log: EventLog, clock: Clock, forgotten_after: timedelta | None) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock
        self._forgotten_after = forgotten_after

    async def upsert_profile(self, request: pb.UpsertProfileRequest) -> pb.UpsertProfileResponse:
        """Return the profile after the merge."""
        if not request.HasField("profile"):
            raise required("profile")
        payload = request.profile.SerializeToString()
        core_rs.check_profile(payload)
        visitor_id = request.profile.visitor_id
        record = NewRecord(RECORD_KIND_PROFILE, visitor_id, "", payload)
        await self._log.append([record], self._clock.now_ms())
        return pb.UpsertProfileResponse(profile=self._known(visitor_id).profile)

    async def get_profile(self, request: pb.GetProfileRequest) -> pb.GetProfileResponse:
        """Return the profile with its live state."""
        return self._known(checked_id("visitor_id", request.visitor_id))

    async def export_user(self, request: pb.ExportUserRequest) -> AsyncIterator[pb.ExportUserResponse]:
        """Yield the profiles, then every event, of the visitor and of the anonymous ids that became the visitor."""
        visitor_id = checked_id("visitor_id", request.visitor_id)
        keys = await self._linked(visitor_id)
        for key in keys:
            with contextlib.suppress(NotFoundError):
                yield pb.ExportUserResponse(profile=self._known(key).profile)
        for key in keys:
            async for event in self._events(key):
                yield pb.ExportUserResponse(event=event)

    async def erase_user(self, request: pb.EraseUserRequest) -> pb.EraseUserResponse:
        """Return by when every store has forgotten; serving and the log have forgotten when this returns.

        The anonymous ids that became the visitor are erased with it. A repeat is harmless.
        """
        keys = await self._linked(checked_id("visitor_id", request.visitor_id))
        return await asyncio.shield(self._erase(keys))  # to its end, though the client leaves

    async def _erase(self, keys: list[str]) -> pb.EraseUserResponse:
        newest_ms = max([await asyncio.to_thread(self._newest_ms, key) for key in keys])
        for record, time_ms in statement_records(self._engine):  # of others: what shows them may go now
            if not self._log.append_later([record], time_ms):
                raise LogUnavailableError("the log cannot keep up with what it is to write; erase again a little later")
        others_first = keys[::-1]  # the visitor last: until then a repeat finds the others by it
        erasures = [_erasure(key, keys[0]) for key in others_first]
        for _ in range(2):  # the second is about decisions that were made while the first was on its way
            erased_ms = max(self._clock.now_ms(), newest_ms + 1)  # clocks may have gone back; answers may tie
            await self._log.append(erasures, erased_ms)
        for key in others_first:
            await asyncio.to_thread(self._log.erase, key)
        response = pb.EraseUserResponse()
        if self._forgotten_after is not None:
            response.complete_time.FromMilliseconds(
                self._clock.now_ms() + self._forgotten_after // timedelta(milliseconds=1)
            )
        return response

    def _known(self, visitor_id: str) -> pb.GetProfileResponse:
        return pb.GetProfileResponse.FromString(self._engine.profile(visitor_id))

    def _newest_ms(self, key: str) -> int:
        """Return the time of the visitor's newest record, Unix milliseconds."""
        return max((record.time_ms for record in self._log.records_of(key)), default=0)

    async def _linked(self, visitor_id: str) -> list[str]:
        """Return the visitor and the anonymous ids that became it."""
        return [visitor_id, *sorted(await asyncio.to_thread(self._log.anonymous_ids, visitor_id))]

    async def _events(self, key: str) -> AsyncIterator[Event]:
        records = self._log.records_of(key)
        while chunk := await asyncio.to_thread(_take, records):
            for record in chunk:
                if record.kind == RECORD_KIND_EVENT:
                    yield Event.FromString(record.payload)


def _erasure(key: str, visitor_id: str) -> NewRecord:
    user_id = "" if key == visitor_id else visitor_id
    return NewRecord(RECORD_KIND_ERASURE, key, "", kinds.erasure(key, user_id))


def _take(records: Iterator[LogRecord]) -> list[LogRecord]:
    return list(islice(records, _CHUNK))
