"""Rows of `profiles` are what is stated and was not forgotten, however the sink cuts and repeats its batches."""

from collections.abc import Iterator
from itertools import count
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.adapters.chdb_store import ChdbStore
from server.ports import LogRecord, NewRecord
from server.workers.rows import Row, profile_row
from server.workers.table_writer import TableWriter
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE, RECORD_KIND_STATED, Stated
from tests.table_shop import TRAINING, erasure, profile

_NAMES: Final = count()
_COLUMNS: Final = "trait_names, trait_values, training, log_offset"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    store = ChdbStore(tmp_path_factory.mktemp("tables") / "store")
    store.migrate()
    yield store
    store.close()


def taken_over(visitor_id: str, denied_ms: int) -> NewRecord:
    """Return the record of a browser's denial."""
    denial = Stated.Denial(purpose=TRAINING, time_ms=denied_ms, bound_ms=denied_ms + 1)
    payload = Stated(visitor_id=visitor_id, denials=[denial]).SerializeToString()
    return NewRecord(RECORD_KIND_STATED, visitor_id, "", payload)


def record_of(visitor_id: str, what: str, time_ms: int) -> NewRecord:
    if what == "erase":
        return erasure(visitor_id)
    if what == "bind":
        return taken_over(visitor_id, time_ms)
    if what in {"grant", "deny"}:
        return profile(visitor_id, training=what == "grant")
    return profile(visitor_id, {what: str(time_ms)})


steps = st.lists(
    st.tuples(
        st.sampled_from(["size", "city", "grant", "deny", "bind", "erase"]),
        st.integers(1, 12),
        st.sampled_from(["goes on", "ends a batch", "is repeated"]),
    ),
    min_size=1,
    max_size=10,
)


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_row_is_made_of_the_statements_since_the_newest_erasure(
    store: ChdbStore, taken: list[tuple[str, int, str]]
) -> None:
    visitor_id, writer = f"v{next(_NAMES)}", TableWriter(store)
    records = []
    for offset, (what, time_ms, _) in enumerate(taken, 1):
        new = record_of(visitor_id, what, time_ms)
        records.append(LogRecord(offset, new.kind, time_ms, new.key, "", new.payload))
    batch: list[LogRecord] = []
    for record, (_, _, then) in zip(records, taken, strict=True):
        batch.append(record)
        if then != "goes on":
            writer.write(batch)
        if then == "is repeated":  # by another process, after a crash
            writer = TableWriter(store)
            writer.write(batch)
        batch = batch if then == "goes on" else []
    writer.write(batch)
    erased = [record for record in records if record.kind == RECORD_KIND_ERASURE]
    erased_ms = max((record.time_ms for record in erased), default=-1)
    row: Row | None = None
    for record in records:
        if record.kind != RECORD_KIND_ERASURE and record.time_ms > erased_ms:
            row = profile_row(record, row)
    place = max(0 if row is None else row["log_offset"], *(record.offset for record in erased), 0)
    expected = [] if row is None else [(row["trait_names"], row["trait_values"], row["training"], place)]
    found = store.query(f"SELECT {_COLUMNS} FROM profiles FINAL WHERE visitor_id = '{visitor_id}'")  # noqa: S608
    assert [tuple(one.values()) for one in found.to_pylist()] == expected
