"""Records made again of what the tables hold: what a new machine needs and Kafka keeps no longer.

Events that Kafka still has are left out, so that they come once and in its order. What was stated is merged, so it is
harmless that newer changes of it come again, and erasures go by their time. Items, placements, controls and activations
Kafka keeps for ever.
"""

import base64
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from server import kinds
from server.importing.writing import as_timestamp, money
from server.ports import Arrival, LogRecord
from server.streams import place_of
from server.workers.rows import known_stated
from shopkeeper.v1.common_pb2 import Context, Device
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE, RECORD_KIND_EVENT, RECORD_KIND_STATED

DUMPS: Final[Mapping[str, str]] = {
    "erasures": "SELECT visitor_id, log_offset, time_ms FROM erasures FINAL ORDER BY time_ms, visitor_id",
    "statements": "SELECT visitor_id, log_offset, kind, time_ms, base64Encode(payload) AS payload "
    "FROM statements FINAL ORDER BY time_ms, log_offset",
    "profiles": "SELECT visitor_id, base64Encode(payload) AS payload, base64Encode(stated) AS stated "
    "FROM profiles FINAL ORDER BY visitor_id",
    "events": "SELECT * FROM events FINAL ORDER BY if(arrive_ms > 0, arrive_ms, time_ms), time_ms, "
    "visitor_id != anonymous_id, log_offset, visitor_id, event_id, line",
}
"""Query of each file, in the order in which they become records. Of one moment, logins come last."""

ORIGIN: Final = "tables"
"""Of these records; as those of another machine they are not shipped."""

_TOPIC: Final = "events"
"""Of all of these records; what other topics told is left to them."""
_BATCH_ROWS: Final = 10_000


def arrivals_of(folder: Path, begins: Mapping[tuple[str, int], int]) -> Iterator[Arrival]:
    """Yield the records of the files of `DUMPS`: erasures, statements, profiles, then events in order of arrival.

    `begins` is the first offset that Kafka has, by topic and partition. What the tables hold of a visitor who was
    forgotten was taken later, so where its time is not known it is after that of the erasure. Profiles say what
    statements no longer do, and what counts of all of it.
    """
    forgotten: dict[str, int] = {}

    def time_of(key: str, time_ms: int) -> int:
        return max(time_ms, forgotten.get(key, -1) + 1)

    def is_ours(row: Mapping[str, Any]) -> bool:
        return place_of(row["log_offset"])[0] == _TOPIC

    def is_gone(row: Mapping[str, Any]) -> bool:
        topic, partition, offset = place_of(row["log_offset"])
        return topic == _TOPIC and offset < begins.get((topic, partition), 0)

    for row in filter(is_ours, _rows(folder / "erasures.parquet")):
        forgotten[row["visitor_id"]] = row["time_ms"]
        yield _arrival(RECORD_KIND_ERASURE, row["time_ms"], row["visitor_id"], "", kinds.erasure(row["visitor_id"]))
    for row in filter(is_gone, _rows(folder / "statements.parquet")):
        payload = base64.b64decode(row["payload"])
        yield _arrival(row["kind"], row["time_ms"], row["visitor_id"], "", payload)
    for row in _rows(folder / "profiles.parquet"):
        key, stated = row["visitor_id"], known_stated(*(base64.b64decode(row[name]) for name in ("stated", "payload")))
        yield _arrival(RECORD_KIND_STATED, time_of(key, 0), key, "", stated)
    events = filter(is_gone, _rows(folder / "events.parquet"))
    for _, lines in groupby(events, lambda row: (row["visitor_id"], row["event_id"])):
        first, *others = lines
        payload = _event(first, [first, *others]).SerializeToString()
        key = first["visitor_id"]
        time_ms = time_of(key, first["arrive_ms"] or first["time_ms"])
        yield _arrival(RECORD_KIND_EVENT, time_ms, key, first["event_id"], payload)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()


def _arrival(kind: int, time_ms: int, key: str, record_id: str, payload: bytes) -> Arrival:
    return Arrival(LogRecord(0, kind, time_ms, key, record_id, payload), ORIGIN, 0)


def _event(first: dict[str, Any], lines: list[dict[str, Any]]) -> Event:
    """Return the event of a table's lines; an anonymous id that is the key's own says that no user is known."""
    key, anonymous_id = first["visitor_id"], first["anonymous_id"]
    context = Context(
        visitor_id=anonymous_id,
        user_id="" if key == anonymous_id else key,
        device=Device.Value(f"DEVICE_{first['device'].upper() or 'UNSPECIFIED'}"),
        **{name: first[name] for name in ("session_id", "country_code", "store_id", "campaign_id", "query")},
    )
    return Event(
        event_id=first["event_id"],
        event_type=EventType.Value(f"EVENT_TYPE_{first['event_type'].upper() or 'UNSPECIFIED'}"),
        event_time=as_timestamp(first["time_ms"]),
        context=context,
        items=[_line(line) for line in lines if line["item_id"]],
        attribution_token=first["attribution_token"],
    )


def _line(line: dict[str, Any]) -> EventItem:
    price = None if line["price"] is None else money(line["price"], line["currency"])
    return EventItem(item_id=line["item_id"], quantity=line["quantity"], price=price, position=line["position"])
