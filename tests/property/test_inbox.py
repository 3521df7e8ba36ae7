"""Machines that exchange what they write end up alike, in whatever order it travels."""

from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from server.adapters.inbox import SqliteInbox
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.ports import Arrival, LogRecord, NewRecord
from server.streams import key_of
from shopkeeper.v1.placement_pb2 import Placement
from shopkeeper.v1.record_pb2 import DocumentChange, RecordKind

DOCUMENT, EVENT = RecordKind.RECORD_KIND_DOCUMENT, RecordKind.RECORD_KIND_EVENT


class Machine:
    def __init__(self, path: Path) -> None:
        self.log = SqliteLog(path, commit_wait_ms=0)
        self.outbox = SqliteOutbox(path)
        self.inbox = SqliteInbox(path)
        self.shipped = self.read = 0

    def write(self, record: NewRecord) -> None:
        list(self.log.import_records([[record]], 5))

    def ship(self, stream: list[Arrival]) -> None:
        """Put the next record into the stream."""
        for record in self.outbox.read(self.shipped, 1):
            stream.append(Arrival(record, self.outbox.origin, record.offset))
            self.shipped = record.offset

    def follow(self, stream: list[Arrival], count: int) -> None:
        end = min(len(stream), self.read + count)
        self.inbox.take(stream[self.read : end], {"topic/0": end})
        self.read = end

    def records(self) -> list[LogRecord]:
        return self.log.read(0, 10_000)

    def close(self) -> None:
        for part in (self.inbox, self.outbox, self.log):
            part.close()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1), st.sampled_from(["a", "b", "event", "same event"]) | st.sampled_from(["ship", "follow"])
    ),
    max_size=25,
)


def record(what: str, number: int) -> NewRecord:
    if "event" in what:
        return NewRecord(EVENT, "v", "same" if what == "same event" else f"e{number}", b"p")
    change = DocumentChange(placement=Placement(placement_id=what, description=str(number)))
    return NewRecord(DOCUMENT, "", "", change.SerializeToString())


@settings(max_examples=25, deadline=None)
@given(STEPS)
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
        latest = {key_of(one.record): one.record.payload for one in stream if one.record.kind == DOCUMENT}
        event_ids = {one.record.record_id for one in stream if one.record.kind == EVENT}
        for machine in machines:
            records = machine.records()
            assert {key_of(one): one.payload for one in records if one.kind == DOCUMENT} == latest
            ids = [one.record_id for one in records if one.kind == EVENT]
            assert sorted(ids) == sorted(event_ids)
            assert machine.outbox.read(machine.shipped, 10) == [], "what came from others is not shipped again"
            assert machine.inbox.places() == {"topic/0": len(stream)}
            machine.close()
