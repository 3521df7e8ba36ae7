"""Profiles that Kafka keeps no longer, for the tables that it fills: each machine states once what its log knows."""

import threading
from typing import Final

from google.protobuf.message import DecodeError

from server.ports import EventLog, EventStore, LogRecord
from server.workers.table_writer import TableWriter
from shopkeeper.v1.profile_service_pb2 import Profile

BEFORE_ALL: Final = -(2**62)
"""Added to offsets of the log, so that whatever Kafka has is newer."""
_BATCH_ROWS: Final = 20_000


def fill_profiles(log: EventLog, store: EventStore, name: str, stopping: threading.Event) -> int:
    """Bring the profiles of a log into tables that have not had them from it; return how many changes there were.

    What the tables have of a visitor already stays. Changes that Kafka has too come again from there, all that are
    newer among them, so that a profile ends as it is.

    Parameters
    ----------
    log : of this machine
    store : tables, up to date
    name : of the position that says that it was done
    stopping : ends it early; the next start does it again
    """
    count = after = 0
    if name in store.positions():
        return count
    writer = TableWriter(store)
    while records := log.profiles(after, _BATCH_ROWS):
        if stopping.is_set():
            return count
        after = records[-1].offset
        stated = [record._replace(offset=record.offset + BEFORE_ALL) for record in records if _can_be_read(record)]
        writer.write(stated)
        count += len(stated)
    store.save_positions({name: 1})
    return count


def _can_be_read(record: LogRecord) -> bool:
    try:
        Profile.FromString(record.payload)
    except DecodeError:
        return False
    return True
