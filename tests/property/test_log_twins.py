"""The file and the memory twin agree on every sequence of calls."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from server.adapters.memory_log import MemoryLog
from server.adapters.sqlite_log import SqliteLog
from server.ports import NewRecord
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE

RECORDS = st.builds(
    NewRecord,
    kind=st.integers(0, 8),
    key=st.sampled_from(["", "v", "w", "ü'\x00"]),
    record_id=st.sampled_from(["", "1", "2", "3", "ä\x00"]),
    payload=st.sampled_from([b"", b"x", b"\xff\x00"]),
).map(lambda record: record._replace(record_id="") if record.kind == RECORD_KIND_ERASURE else record)
"""Erasures have no ids: one that comes twice is about the same."""
CALLS = st.lists(st.lists(RECORDS, max_size=6) | st.sampled_from(["v", "w", "", "nobody"]), max_size=8)


@settings(max_examples=60)
@given(CALLS)
def test_file_and_memory_agree(calls: list[list[NewRecord] | str]) -> None:
    with TemporaryDirectory() as folder:
        logs = (SqliteLog(Path(folder) / "log.sqlite", commit_wait_ms=0), MemoryLog())
        for call in calls:
            if isinstance(call, str):
                results = [[log.erase(call), list(log.records_of(call))] for log in logs]
            else:
                results = [list(log.import_records([call], 7)) for log in logs]
            assert results[0] == results[1]
            assert logs[0].read(0, 99) == logs[1].read(0, 99)
            assert logs[0].statements(1, 3) == logs[1].statements(1, 3)
            assert logs[0].read(1, 3, bare_kinds=(1, 2)) == logs[1].read(1, 3, bare_kinds=(1, 2))
        logs[0].close()
