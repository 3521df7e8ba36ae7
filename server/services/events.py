"""What happens in the shop, on its way into the log."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

from core_rs import Engine, EventBatch
from server import telemetry
from server.ports import AppendStatus, Clock, EventLog, NewRecord
from shopkeeper.v1 import event_service_pb2 as pb
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT

_MAX_SAMPLES: Final = 100


class EventService:
    """RecordEvents and ImportEvents.

    Parameters
    ----------
    engine : checks events and encodes replies
    log : where valid events go
    clock : time of arrival
    """

    descriptor = pb.DESCRIPTOR.services_by_name["EventService"]
    raw_methods = frozenset({"RecordEvents", "ImportEvents"})

    def __init__(self, engine: Engine, log: EventLog, clock: Clock) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock

    async def record_events(self, request: bytes) -> bytes:
        """Return `RecordEventsResponse` once the valid events are on disk and in this replica.

        The engine works on the event loop: a usual batch takes it less time than a hop to a thread.
        """
        batch, statuses = await self._take(request, history=False)
        return batch.reply(statuses)

    async def import_events(self, requests: AsyncIterator[bytes]) -> bytes:
        """Return `ImportEventsResponse` of a stream of `ImportEventsRequest`, which is encoded like RecordEvents'."""
        total = pb.ImportEventsResponse()
        seen = 0
        async for request in requests:
            batch, statuses = await self._take(request, history=True)
            total.joined_count += batch.joined_count
            total.unjoined_count += batch.unjoined_count
            total.accepted_count += statuses.count(AppendStatus.STORED)
            total.duplicate_count += statuses.count(AppendStatus.DUPLICATE)
            rejected = batch.rejected_count + statuses.count(AppendStatus.CONFLICT)
            total.rejected_count += rejected
            if rejected and len(total.error_samples) < _MAX_SAMPLES:
                samples = _rejections(batch.reply(statuses), seen)
                total.error_samples.extend(samples[: _MAX_SAMPLES - len(total.error_samples)])
            seen += len(statuses) + batch.rejected_count
        return total.SerializeToString()

    async def _take(self, request: bytes, *, history: bool) -> tuple[EventBatch, Sequence[AppendStatus]]:
        now_ms = self._clock.now_ms()
        batch = self._engine.prepare_events(request, now_ms, history=history)
        records = [NewRecord(RECORD_KIND_EVENT, key, event_id, payload) for event_id, key, payload in batch.rows]
        statuses = await self._log.append(records, now_ms) if records else []
        for outcome in AppendStatus:
            telemetry.EVENTS.labels(outcome.name.lower()).inc(statuses.count(outcome))
        telemetry.EVENTS.labels("rejected").inc(batch.rejected_count)
        return batch, statuses


def _rejections(reply: bytes, seen: int) -> list[pb.EventResult]:
    """Return the rejected results of a reply; their fields count from the start of the stream, `seen` events ago."""
    results = pb.RecordEventsResponse.FromString(reply).results
    rejected = [result for result in results if result.status == pb.EventResult.STATUS_REJECTED]
    for result in rejected:
        result.field = re.sub(r"(?<=^events\[)\d+", lambda index: str(seen + int(index[0])), result.field)
    return rejected
