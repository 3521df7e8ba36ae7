"""Machines that exchange what they write end up alike, in whatever order it travels."""

from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.ports import Arrival, LogRecord, NewRecord
from server.streams import key_of
from shopkeeper.v1.placement_pb2 import Placement
from shopkeeper.v1.record_pb2 import DocumentChange, RecordKind
from tests.machines import Machine

DOCUMENT, EVENT = RecordKind.RECORD_KIND_DOCUMENT, RecordKind.RECORD_KIND_EVENT


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["a", "b", "same a", "event", "same event"]) | st.sampled_from(["ship", "follow"]),
    ),
    max_size=25,
)


def record(what: str, number: int) -> NewRecord:
    if "event" in what:
        return NewRecord(EVENT, "v", "same" if what == "same event" else f"e{number}", b"p")
    is_same = what == "same a"
    change = DocumentChange(placement=Placement(placement_id=what[-1], description="" if is_same else str(number)))
    return NewRecord(DOCUMENT, "", "imported" if is_same else "", change.SerializeToString())


def latest(records: list[LogRecord]) -> dict[str, bytes]:
    """Return the last change of each document; of those of one id the first counts."""
    found, ids = {}, {""}
    for one in records:
        if one.kind == DOCUMENT and not (one.record_id and one.record_id in ids):
            found[key_of(one)] = one.payload
            ids.add(one.record_id)
    return found


@settings(max_examples=25)
@given(STEPS)
@example([(0, "same a"), (1, "a"), (1, "ship"), (0, "ship")])
@example([(1, "a"), (1, "same a"), (0, "same a"), (0, "ship"), (1, "ship"), (1, "ship")])
def test_machines_end_alike(steps: list[tuple[int, str]]) -> None:
    with TemporaryDirectory() as folder:
        machines = [Machine(Path(folder) / f"{name}.sqlite") for name in "ab"]
        stream: list[Arrival] = []
        for number, (index, what) in enumerate(steps):
            if what == "ship":
                machines[index].ship(stream)
            elif what == "follow":
                machines[index].follow(stream, 2)
            else:
                machines[index].write(record(what, number))
        waiting = deque(machines * 30)
        while waiting:
            waiting.popleft().ship(stream)
        for machine in machines:
            machine.follow(stream, len(stream))
        wanted = latest([one.record for one in stream])
        event_ids = {one.record.record_id for one in stream if one.record.kind == EVENT}
        for machine in machines:
            records = machine.records()
            assert {key_of(one): one.payload for one in records if one.kind == DOCUMENT} == wanted
            ids = [one.record_id for one in records if one.kind == EVENT]
            assert sorted(ids) == sorted(event_ids)
            assert machine.outbox.read(machine.shipped, 10) == [], "what came from others is not shipped again"
            assert machine.inbox.places() == {"topic/0": len(stream)}
            machine.close()
