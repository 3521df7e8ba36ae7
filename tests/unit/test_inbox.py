"""Machines that change the same at once, or forget what one of them has not told yet, end alike."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from core_rs import Engine
from server.clock import ShiftedClock
from server.importing.writing import profile_record
from server.ports import Arrival, NewRecord
from server.services.catalog import CatalogService
from server.telemetry import CONFLICTING_EVENTS
from server.workers.rows import item_row
from shopkeeper.v1.catalog_service_pb2 import DeleteItemRequest, UpsertItemsRequest
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse, Profile
from shopkeeper.v1.record_pb2 import ItemChange, RecordKind
from tests.machines import Machine, three_machines
from tests.table_shop import erasure, event, profile

EVENT, ERASURE = RecordKind.RECORD_KIND_EVENT, RecordKind.RECORD_KIND_ERASURE


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    yield from three_machines(tmp_path)


def exchange(machines: list[Machine], stream: list[Arrival], *senders: Machine) -> None:
    """Let machines ship all they have, one after the other, and then all follow."""
    for machine in senders:
        for _ in range(20):
            machine.ship(stream)
    for machine in machines:
        machine.follow(stream, len(stream))


def test_event_id_with_two_contents_is_counted(machines: list[Machine]) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    here.write(event("same", "a"), event("e1", "a"))
    there.write(event("same", "a"), event("e1", "b"))
    before = CONFLICTING_EVENTS._value.get()
    exchange(machines, stream, here, there)
    assert CONFLICTING_EVENTS._value.get() == before + 3, "each of the two sees it, and who has neither"
    kept = [[Event.FromString(one.payload).items[0].item_id for one in machine.records()] for machine in machines]
    assert kept == [["a", "a"], ["a", "b"], ["a", "a"]]


def catalog(machine: Machine, time_ms: int) -> CatalogService:
    return CatalogService(machine.engine(), machine.log, ShiftedClock(time_ms, rate=0))


async def change(machine: Machine, time_ms: int, *paths: str, set_s: int = 0, **fields: object) -> None:
    item = Item(item_id="brie", **fields)  # type: ignore[arg-type]
    request = UpsertItemsRequest(items=[item], update_mask=FieldMask(paths=paths))
    if set_s:
        request.set_time.CopyFrom(Timestamp(seconds=set_s))
    await catalog(machine, time_ms).upsert_items(request)


def served(engine: Engine) -> tuple[str, str, int]:
    item = Item.FromString(engine.item("brie"))
    return item.title, item.brand, item.stock_quantity


def in_tables(machine: Machine) -> tuple[str, str, int]:
    row = None
    for record in machine.records():
        row = item_row(record, ItemChange.FromString(record.payload), row) or row
    assert row is not None
    return row["title"], row["brand"], row["stock_quantity"]


async def test_fields_that_two_machines_changed_at_once_are_all_kept_everywhere(machines: list[Machine]) -> None:
    here, there, third = machines
    stream: list[Arrival] = []
    await change(here, 1_000, title="Brie", brand="old", stock_quantity=1)
    exchange(machines, stream, here)
    await change(here, 2_000, "brand", brand="new")
    await change(there, 3_000, "stock_quantity", stock_quantity=7)
    exchange(machines, stream, there, here)
    assert [served(machine.engine()) for machine in machines] == [("Brie", "new", 7)] * 3
    assert in_tables(third) == ("Brie", "new", 7)


async def test_item_that_is_removed_comes_back_by_what_is_later_in_kafka(machines: list[Machine]) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    await change(here, 1_000, title="Brie")
    exchange(machines, stream, here)
    await change(here, 2_000, title="back")
    await catalog(there, 3_000).delete_item(DeleteItemRequest(item_id="brie"))
    exchange(machines, stream, there, here)
    assert [served(machine.engine())[0] for machine in machines] == ["back"] * 3


async def test_of_changes_that_give_times_the_latest_wins_in_any_order(machines: list[Machine]) -> None:
    here, there, third = machines
    stream: list[Arrival] = []
    now_ms = 1_700_000_000_000
    await change(here, now_ms, set_s=1_600_000_001, title="newer")
    await change(there, now_ms, set_s=1_600_000_000, title="older")
    exchange(machines, stream, here, there)
    assert [served(machine.engine())[0] for machine in machines] == ["newer"] * 3
    assert in_tables(third)[0] == "newer"


def consents(machine: Machine) -> list[bool]:
    found = GetProfileResponse.FromString(machine.engine().profile("v"))
    return [consent.granted for consent in found.profile.consents]


@pytest.mark.parametrize("imports_first", [True, False])
def test_imported_profile_counts_where_kafka_has_it(machines: list[Machine], *, imports_first: bool) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    denied = Profile.FromString(profile("v", training=False).payload)
    here.write(profile_record(denied, 1_000))
    there.write(profile("v", training=True))
    exchange(machines, stream, *((here, there) if imports_first else (there, here)))
    assert [consents(machine) for machine in machines] == [[imports_first]] * 3


def events_of(machine: Machine) -> list[str]:
    return [record.record_id for record in machine.records() if record.kind == EVENT]


@pytest.mark.parametrize("is_late", [True, False])
def test_anonymous_past_of_a_login_that_the_erasing_machine_did_not_know_is_forgotten(
    machines: list[Machine], *, is_late: bool
) -> None:
    here, there, third = machines
    stream: list[Arrival] = []
    there.write(event("e1", "a", visitor_id="phone"), event("e2", "a", visitor_id="phone", user_id="ann"),
                event("e3", "a", visitor_id="laptop"), time_ms=1_000)  # fmt: skip
    here.write(erasure("ann"), time_ms=2_000)
    senders = (here, there) if is_late else (here,)
    exchange(machines, stream, *senders)
    exchange(machines, stream, there)
    assert [events_of(machine) for machine in machines] == [["e3"]] * 3
    third.write(event("e4", "a", visitor_id="phone"), time_ms=2_001)
    exchange(machines, stream, third)
    assert [events_of(machine) for machine in machines] == [["e3", "e4"]] * 3
    told = [one.record.key for one in stream if one.record.kind == ERASURE]
    assert told == ["ann", "phone", *["phone"] * is_late], "each that leaves the login out tells of it too"


def test_another_user_in_an_event_is_not_forgotten_with_the_visitor(machines: list[Machine]) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    there.write(event("e1", "a", visitor_id="", user_id="bob"), time_ms=1_000)
    there.write(event("e2", "a", visitor_id="bob", user_id="ann"), time_ms=1_000)
    here.write(erasure("ann"), time_ms=2_000)
    exchange(machines, stream, here, there)
    exchange(machines, stream, there)
    assert [events_of(machine) for machine in machines] == [["e1"]] * 3
    assert [one.record.key for one in stream if one.record.kind == ERASURE] == ["ann"]


def test_anonymous_past_that_was_forgotten_with_the_visitor_is_not_forgotten_again(machines: list[Machine]) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    there.write(event("e1", "a", visitor_id="phone", user_id="ann"), time_ms=1_000)
    exchange(machines, stream, there)
    here.write(erasure("ann"), erasure("phone", "ann"), time_ms=2_000)
    exchange(machines, stream, here)
    there.write(NewRecord(EVENT, "w", "e2", b""))
    exchange(machines, stream, there)
    assert [one.record.record_id or one.record.key for one in stream] == ["e1", "ann", "phone", "e2"]
