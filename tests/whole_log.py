"""All that a log holds, of which one read gives but a part."""

from collections.abc import Iterator

from server.ports import EventLog, LogRecord
from shopkeeper.v1.record_pb2 import RECORD_KIND_EVENT


def every_record(log: EventLog) -> Iterator[LogRecord]:
    """Yield the records of `log`, in order."""
    after = 0
    while records := log.read(after, 100_000):
        yield from records
        after = records[-1].offset


def event_ids(log: EventLog) -> list[str]:
    """Return the ids of the events of `log`, in order."""
    return [record.record_id for record in every_record(log) if record.kind == RECORD_KIND_EVENT]
