"""Records of an import: how lines, items and profiles get into the log, in groups large enough for one commit."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl
from google.protobuf.timestamp_pb2 import Timestamp

import core_rs
from server.importing.report import ImportReport
from server.kinds import content_id
from server.ports import AppendStatus, EventLog, NewRecord
from shopkeeper.v1 import common_pb2, item_pb2, profile_service_pb2, record_pb2

GROUP = 20_000
"""Records of one commit."""

LINES = pl.Schema(
    {
        "event_id": pl.String,
        "event_type": pl.Int32,
        "time_ms": pl.Int64,
        "visitor_id": pl.String,
        "item_id": pl.String,
        "session_id": pl.String,
        "store_id": pl.String,
        "query": pl.String,
        "quantity": pl.Int32,
        "price_micros": pl.Int64,
    }
)
"""Columns of event lines; empty text means unset, a negative price means none."""

_KINDS = (record_pb2.RECORD_KIND_EVENT, record_pb2.RECORD_KIND_DECISION, record_pb2.RECORD_KIND_PROFILE)


def event_records(lines: pl.DataFrame, currency: str) -> list[NewRecord]:
    """Return one record an event.

    Parameters
    ----------
    lines : pl.DataFrame
        Columns `LINES`; the lines of an event follow each other, its first line speaks for the event.
    currency : str
        ISO 4217 code of the prices.
    """
    first = lines["event_id"].ne_missing(lines["event_id"].shift(1)).to_numpy()
    events = lines.filter(first)
    with_item = lines["item_id"].ne("").to_numpy()
    counts = np.add.reduceat(with_item.astype(np.int64), np.flatnonzero(first))
    items = lines.filter(with_item)
    encoded = core_rs.encode_events(
        events["event_id"].to_list(),
        events["event_type"].to_numpy(),
        events["time_ms"].to_numpy(),
        events["visitor_id"].to_list(),
        events["session_id"].to_list(),
        events["store_id"].to_list(),
        events["query"].to_list(),
        np.concatenate(([0], np.cumsum(counts))),
        items["item_id"].to_list(),
        items["quantity"].to_numpy(),
        items["price_micros"].to_numpy(),
        currency,
    )
    return [NewRecord(record_pb2.RECORD_KIND_EVENT, key, event_id, payload) for event_id, key, payload in encoded]


def item_record(item: item_pb2.Item, set_time_ms: int) -> NewRecord:
    """Return the record that replaces an item; the same item and time are stored once."""
    change = record_pb2.ItemChange(item=item, set_time=as_timestamp(set_time_ms))
    payload = change.SerializeToString(deterministic=True)
    return NewRecord(record_pb2.RECORD_KIND_ITEM, "", content_id("item", payload), payload)


def profile_record(profile: profile_service_pb2.Profile, set_time_ms: int) -> NewRecord:
    """Return the record that merges a profile; the same profile and time are stored once."""
    payload = profile.SerializeToString(deterministic=True)
    record_id = content_id("profile", payload + str(set_time_ms).encode())
    return NewRecord(record_pb2.RECORD_KIND_PROFILE, profile.visitor_id, record_id, payload)


def as_timestamp(time_ms: int) -> Timestamp:
    """Return Unix milliseconds as a Timestamp."""
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def money(amount: float, currency: str) -> common_pb2.Money:
    """Return an amount of money, exact to the millionth."""
    units, micros = divmod(round(amount * 1e6), 1_000_000)
    return common_pb2.Money(currency_code=currency, units=units, nanos=micros * 1000)


def grouped(records: Iterable[NewRecord]) -> Iterator[list[NewRecord]]:
    """Yield the records in groups of `GROUP`."""
    group: list[NewRecord] = []
    for record in records:
        group.append(record)
        if len(group) == GROUP:
            yield group
            group = []
    if group:
        yield group


def store(log: EventLog | None, groups: Iterable[Sequence[NewRecord]], time_ms: int, report: ImportReport) -> None:
    """Append groups of records and count what became of them; without a log, only count them.

    Raises
    ------
    LogUnavailableError
        When a group cannot be stored; those before it are.
    """
    waiting: deque[Sequence[NewRecord]] = deque()

    def counted() -> Iterator[Sequence[NewRecord]]:
        for group in groups:
            report.records += len(group)
            waiting.append(group)
            yield group

    if log is None:
        for _ in counted():
            waiting.clear()
        return
    for statuses in log.import_records(counted(), time_ms):
        group = waiting.popleft()
        report.stored += statuses.count(AppendStatus.STORED)
        report.duplicates += statuses.count(AppendStatus.DUPLICATE)
        conflicts = [
            record.record_id for record, status in zip(group, statuses, strict=True) if status == AppendStatus.CONFLICT
        ]
        if conflicts and not report.conflicts:
            report.notes.append(f"the log has event {conflicts[0]} with other lines; it was left as it is")
        report.conflicts += len(conflicts)


def known_items(log: EventLog) -> set[str]:
    """Return the ids of the items that the log has brought into the catalogue."""
    ids: set[str] = set()
    after = 0
    while records := log.read(after, GROUP, bare_kinds=_KINDS):
        after = records[-1].offset
        for record in records:
            if record.kind == record_pb2.RECORD_KIND_ITEM:
                change = record_pb2.ItemChange.FromString(record.payload)
                (ids.discard if change.deleted else ids.add)(change.item.item_id)
    return ids
