"""The log in memory: for tests and for trying things out; nothing outlives the process."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final

from server import kinds
from server.ports import AppendStatus, LogRecord, NewRecord
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE, RECORD_KIND_EVENT, RECORD_KIND_UNSPECIFIED, RecordKind

_offset_of: Final = attrgetter("offset")


class MemoryLog:
    """`EventLog` without a disk; everything is stored at once, so nothing is ever dropped."""

    def __init__(self) -> None:
        self._records: list[LogRecord] = []
        self._payloads: dict[str, bytes] = {}
        self._erased_ms: dict[str, int] = {}
        self._hooks: list[Callable[[int], object]] = []
        self._lock = threading.RLock()

    async def append(self, records: Sequence[NewRecord], time_ms: int) -> list[AppendStatus]:
        """Return one status a record, once the commit hooks have run."""
        return self._commit(records, time_ms, is_now=True)

    def append_later(self, records: Sequence[NewRecord], time_ms: int) -> bool:
        """Store the records now, but for late ones, and return True."""
        self._commit([record for record in records if not self._is_late(record, time_ms)], time_ms)
        return True

    def import_records(self, batches: Iterable[Sequence[NewRecord]], time_ms: int) -> Iterator[list[AppendStatus]]:
        """Yield the statuses of each batch."""
        for batch in batches:
            yield self._commit(batch, time_ms, is_now=True)

    @property
    def dropped_count(self) -> int:
        """Return 0."""
        return 0

    def read(
        self, after: int, limit: int, *, bare_kinds: Collection[int] = (), skip_kinds: Collection[int] = ()
    ) -> list[LogRecord]:
        """Return up to `limit` records above the offset `after`, in order."""
        with self._lock:
            start = bisect_right(self._records, after, key=_offset_of)
            wanted = (record for record in self._records[start:] if record.kind not in skip_kinds)
            records = list(islice(wanted, limit))
        return [record._replace(payload=b"") if record.kind in bare_kinds else record for record in records]

    def last_offset(self) -> int:
        """Return the offset of the last record; 0 if there is none."""
        with self._lock:
            return self._records[-1].offset if self._records else 0

    def trimmed_offset(self) -> int:
        """Return 0."""
        return 0

    def records_of(self, key: str, *, after_ms: int = -1) -> Iterator[LogRecord]:
        """Yield the records of one visitor that a log took after a time, in order."""
        with self._lock:
            records = list(self._records)
        return (record for record in records if key and record.key == key and record.time_ms > after_ms)

    def anonymous_ids(self, key: str) -> set[str]:
        """Return the anonymous ids that became the visitor, as its events show."""
        found = {context.visitor_id for context in self._contexts_of(key)} - {key, ""}
        return {one for one in found if not any(context.user_id for context in self._contexts_of(one))}

    def statements(self, after: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records of what was stated above the offset `after`, in order."""
        return self.read(after, limit, skip_kinds=set(RecordKind.values()) - kinds.STATING)

    def erase(self, key: str) -> int:
        """Delete what the visitor's erasures are about; return how many records."""
        with self._lock:
            records = list(self.records_of(key))
            erasures = [record for record in records if record.kind == RECORD_KIND_ERASURE]
            erased = [record for record in records if _is_erased(record, erasures)]
            gone, last = {record.offset for record in erased}, self.last_offset()
            blank = [LogRecord(last, RECORD_KIND_UNSPECIFIED, 0, "", "", b"")] if last in gone else []
            self._records = [record for record in self._records if record.offset not in gone] + blank
            for record in erased:
                self._payloads.pop(record.record_id, None)
        return len(erased)

    def finish_erasures(self) -> int:
        """Delete what erasures are about that nobody deleted; return how many records."""
        with self._lock:
            keys = {record.key for record in self._records if record.kind == RECORD_KIND_ERASURE}
        return sum(self.erase(key) for key in sorted(keys))

    def on_commit(self, hook: Callable[[int], object]) -> None:
        """Call `hook(last offset)` after each commit and before its callers learn of it."""
        self._hooks.append(hook)

    def close(self) -> None:
        """Do nothing; the records stay readable."""

    def _commit(self, records: Sequence[NewRecord], time_ms: int, *, is_now: bool = False) -> list[AppendStatus]:
        with self._lock:
            statuses = [self._store(one, self._after_erasure(one, time_ms) if is_now else time_ms) for one in records]
        for hook in self._hooks:
            hook(self.last_offset())
        return statuses

    def _contexts_of(self, key: str) -> list[Context]:
        events = (record for record in self.records_of(key) if record.kind == RECORD_KIND_EVENT)
        return [kinds.context_of(record.payload) for record in events]

    def _is_late(self, record: NewRecord, time_ms: int) -> bool:
        """Return whether the record was made before its visitor was forgotten, and waited meanwhile."""
        return record.kind in kinds.QUEUED and time_ms <= self._erased_ms.get(record.key, -1)

    def _after_erasure(self, record: NewRecord, time_ms: int) -> int:
        """Return the time of what comes now: a visitor who is back is back after its erasure."""
        erased_ms = self._erased_ms.get(record.key, -1)
        return max(time_ms, erased_ms + 1) if record.kind in kinds.ACTS else time_ms

    def _store(self, record: NewRecord, time_ms: int) -> AppendStatus:
        if record.record_id in self._payloads:
            same = self._payloads[record.record_id] == record.payload
            return AppendStatus.DUPLICATE if same else AppendStatus.CONFLICT
        if record.record_id:
            self._payloads[record.record_id] = record.payload
        kind, key, record_id, payload = record
        if kind == RECORD_KIND_ERASURE:
            self._erased_ms[key] = max(time_ms, self._erased_ms.get(key, time_ms))
        self._records.append(LogRecord(self.last_offset() + 1, kind, time_ms, key, record_id, payload))
        return AppendStatus.STORED


def _is_erased(record: LogRecord, erasures: list[LogRecord]) -> bool:
    is_old = any(record.time_ms <= erasure.time_ms for erasure in erasures)
    is_before = record.kind in kinds.QUEUED or any(record.offset < erasure.offset for erasure in erasures)
    return record.kind in kinds.ERASED and is_old and is_before
