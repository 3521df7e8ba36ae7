import pytest

from server.ports import LogRecord
from server.streams import (
    MAX_PARTITIONS,
    TOPICS,
    arrival_of,
    headers_of,
    key_of,
    number_of,
    offset_of,
    partition_of,
    topic_of,
)
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Control, Placement
from shopkeeper.v1.record_pb2 import DocumentChange, ItemChange, RecordKind


def record(kind: int, payload: bytes = b"", *, key: str = "", record_id: str = "", offset: int = 7) -> LogRecord:
    return LogRecord(offset, kind, 9, key, record_id, payload)


@pytest.mark.parametrize(
    ("key", "checksum"),
    [
        ("", 0x00000000),
        ("123456789", 0xCBF43926),  # the check value of CRC-32/ISO-HDLC
        ("visitor-7", 0xF89A63C1),
        ("0192f0c1-7c0e-7a3b-8d51-1f6d2b7c9e10", 0x4EBF160F),
        ("Käufer-ß", 0x6A761ED0),
    ],
)
def test_partition_is_the_crc_of_the_key(key: str, checksum: int) -> None:
    """Vectors for whoever routes visitors: a client, a balancer, another producer."""
    assert [partition_of(key, count) for count in (1, 12, 1_024)] == [0, checksum % 12, checksum % 1_024]


def test_every_kind_has_a_topic() -> None:
    kinds = set(RecordKind.values()) - {RecordKind.RECORD_KIND_UNSPECIFIED}
    assert {kind for kinds in TOPICS.values() for kind in kinds} == kinds
    assert topic_of(99) == "documents"


def test_keys_keep_what_belongs_together_in_order() -> None:
    item = ItemChange(item=Item(item_id="brie")).SerializeToString()
    placement = DocumentChange(placement=Placement(placement_id="home")).SerializeToString()
    control = DocumentChange(control=Control(control_id="home")).SerializeToString()
    assert key_of(record(1, b"x", key="v")) == "v"
    assert key_of(record(3, item)) == "brie"
    assert key_of(record(5, placement)) == "placement/home"
    assert key_of(record(5, control)) == "control/home"
    assert key_of(record(7, b"x")) == "activation"
    assert key_of(record(3, b"\xff")) == key_of(record(5, b"\xff")) == ""


def test_record_survives_the_journey() -> None:
    sent = record(1, b"\x00\xff", key="ü'\x00", record_id="e1")
    arrival = arrival_of(headers_of(sent, "here", 5, 3), sent.payload, 99)
    assert arrival.record == sent._replace(offset=99)
    assert (arrival.origin, arrival.origin_offset) == ("here", 7)


@pytest.mark.parametrize("name", ["kind", "time_ms", "offset", "origin", "key", "id"])
def test_foreign_message_is_refused(name: str) -> None:
    headers = [pair for pair in headers_of(record(1), "here", 5, 3) if pair[0] != name]
    with pytest.raises(ValueError, match=name):
        arrival_of(headers, b"", 1)
    for value in (b"\xff", None):
        with pytest.raises(ValueError):
            arrival_of([*headers, (name, value)], b"", 1)


@pytest.mark.parametrize(("name", "number"), [("kind", 2**31), ("time_ms", 2**63), ("offset", 2**63), ("offset", -1)])
def test_number_that_no_log_takes_is_refused(name: str, number: int) -> None:
    with pytest.raises(ValueError, match=f"header {name} is not from 0"):
        arrival_of([*headers_of(record(1), "here", 5, 3), (name, str(number).encode())], b"", 1)


@pytest.mark.parametrize("value", [b"", b"-1", b"soon", b"9" * 5_000, b"\xc2\xb2", None])
def test_number_that_is_none_does_no_harm(value: bytes | None) -> None:
    assert number_of([("sent_ms", value)], "sent_ms", 7) == 7


def test_offsets_are_unique_and_rise() -> None:
    places = [(topic, partition) for topic in TOPICS for partition in (0, 1, MAX_PARTITIONS - 1)]
    offsets = [offset_of(topic, partition, offset) for offset in range(3) for topic, partition in places]
    assert len(set(offsets)) == len(offsets)
    assert offsets == sorted(offsets)
    assert offset_of("documents", MAX_PARTITIONS - 1, 2**50) < 2**63
