"""The log on Kafka: which topic, key and partition a record has, and what travels beside its payload.

Records of one visitor stay in order, and so do those of one item or document, for each has one partition.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from server.ports import Arrival, LogRecord, NewRecord
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_ACTIVATION,
    RECORD_KIND_DECISION,
    RECORD_KIND_DOCUMENT,
    RECORD_KIND_ERASURE,
    RECORD_KIND_EVENT,
    RECORD_KIND_ITEM,
    RECORD_KIND_PROFILE,
    RECORD_KIND_STATED,
    DocumentChange,
    ItemChange,
)

TOPICS: Final[Mapping[str, tuple[int, ...]]] = {
    "events": (RECORD_KIND_EVENT, RECORD_KIND_PROFILE, RECORD_KIND_STATED, RECORD_KIND_ERASURE),
    "decisions": (RECORD_KIND_DECISION,),
    "items": (RECORD_KIND_ITEM,),
    "documents": (RECORD_KIND_DOCUMENT, RECORD_KIND_ACTIVATION),
}
"""Kinds of each topic. What is stated and erasures are among the events, so that a visitor is forgotten in order."""

FOLLOWED: Final = ("events", "items", "documents")
"""Topics that change what a replica answers."""

PROFILES: Final = "profiles"
"""Beside the topics: how far the statements of a log were brought into empty tables."""

MAX_PARTITIONS: Final = 1_024
"""Of one topic."""

_TOPIC_OF: Final = {kind: name for name, kinds in TOPICS.items() for kind in kinds}
_SLOTS: Final = MAX_PARTITIONS * len(TOPICS)
_NUMBERS: Final[Mapping[str, int]] = {"kind": 2**31 - 1, "time_ms": 2**63 - 1, "offset": 2**63 - 1}
"""Headers that are numbers, with the most that a log and an engine take."""
_DIGITS: Final = 19
_Headers = Sequence[tuple[str, bytes | None]]


def topic_of(kind: int) -> str:
    """Return the topic of a record; records of kinds that are newer than this program are with the documents."""
    return _TOPIC_OF.get(kind, "documents")


def is_foreign(kind: int, topic: str) -> bool:
    """Return whether records of a kind are in another topic; what is newer than this program may be in any.

    >>> is_foreign(RECORD_KIND_ITEM, "events"), is_foreign(RECORD_KIND_ITEM, "items"), is_foreign(99, "events")
    (True, False, False)
    """
    return _TOPIC_OF.get(kind, topic) != topic


def key_of(record: NewRecord | LogRecord) -> str:
    """Return what keeps records in order: the visitor, the item or the document; empty where it cannot be read."""
    if record.key:
        return record.key
    try:
        if record.kind == RECORD_KIND_ITEM:
            return ItemChange.FromString(record.payload).item.item_id
        if record.kind == RECORD_KIND_DOCUMENT:
            change = DocumentChange.FromString(record.payload)
            kind = change.WhichOneof("document") or "document"
            return f"{kind}/{change.placement.placement_id or change.control.control_id}"
    except DecodeError:
        return ""
    return "activation" if record.kind == RECORD_KIND_ACTIVATION else ""


def partition_of(key: str, count: int) -> int:
    """Return the partition of a key: CRC-32 (IEEE 802.3) of its UTF-8 bytes, modulo the number of partitions.

    It is the partitioner `consistent` of librdkafka. Clients and balancers that send a visitor to a machine use it too.

    >>> partition_of("visitor-7", 12)
    1
    """
    return zlib.crc32(key.encode()) % count


def headers_of(record: LogRecord, origin: str, sent_ms: int, after: int) -> list[tuple[str, bytes]]:
    """Return what travels beside key and payload. Kafka's own time is that of arrival: retention goes by it.

    Parameters
    ----------
    record : what is sent
    origin : name of its log
    sent_ms : time of its round, Unix milliseconds
    after : offset in its log of the last record of a `FOLLOWED` topic that was sent before it; 0 where none is known
    """
    ours = {"kind": record.kind, "time_ms": record.time_ms, "offset": record.offset, "sent_ms": sent_ms, "after": after}
    numbers = tuple(ours.items())
    texts = (("origin", origin), ("key", record.key), ("id", record.record_id))
    return [(name, str(number).encode()) for name, number in numbers] + [(name, text.encode()) for name, text in texts]


def arrival_of(headers: _Headers, payload: bytes, offset: int) -> Arrival:
    """Return the record that `headers_of` describes, under an offset of ours.

    Raises
    ------
    ValueError : the headers are not ours
    """
    found = {name: value for name, value in dict(headers).items() if value is not None}
    try:
        numbers = {name: int(found[name]) for name in _NUMBERS}
        origin, key, record_id = (found[name].decode() for name in ("origin", "key", "id"))
    except KeyError as error:
        raise ValueError(f"the header {error} is missing") from error
    for name, most in _NUMBERS.items():
        if not 0 <= numbers[name] <= most:
            raise ValueError(f"the header {name} is not from 0 to {most}")
    record = LogRecord(offset, numbers["kind"], numbers["time_ms"], key, record_id, payload)
    return Arrival(record, origin, numbers["offset"])


def number_of(headers: _Headers, name: str, otherwise: int) -> int:
    """Return the number that a header tells; `otherwise` where it tells none.

    >>> [number_of(headers, "after", 9) for headers in ([("after", b"7")], [], [("after", b"soon")])]
    [7, 9, 9]
    """
    text = dict(headers).get(name) or b""
    return int(text) if text.isdigit() and len(text) < _DIGITS else otherwise


def offset_of(topic: str, partition: int, offset: int) -> int:
    """Return a number that no other record of any partition has and that rises within a partition.

    >>> offset_of("events", 3, 0) < offset_of("events", 3, 1)
    True
    """
    return offset * _SLOTS + list(TOPICS).index(topic) * MAX_PARTITIONS + partition + 1


def place_of(number: int) -> tuple[str, int, int]:
    """Return topic, partition and offset of a number that `offset_of` made.

    >>> place_of(offset_of("items", 3, 7))
    ('items', 3, 7)
    """
    offset, slot = divmod(number - 1, _SLOTS)
    return list(TOPICS)[slot // MAX_PARTITIONS], slot % MAX_PARTITIONS, offset
