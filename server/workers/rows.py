"""Rows of the table view, made from records of the log."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_rs import stated_after
from server.ports import LogRecord
from shopkeeper.v1.common_pb2 import (
    CONSENT_PURPOSE_MARKETING,
    CONSENT_PURPOSE_PERSONALIZATION,
    CONSENT_PURPOSE_TRAINING,
    Money,
)
from shopkeeper.v1.item_pb2 import Item, PromotionInterval
from shopkeeper.v1.profile_service_pb2 import Profile
from shopkeeper.v1.recommendation_service_pb2 import Reason
from shopkeeper.v1.record_pb2 import RECORD_KIND_STATED, Decision, DocumentChange, ItemChange, Stated

Row = dict[str, Any]

_TEXTS: Final = pa.list_(pa.string())
_NUMBERS: Final = pa.list_(pa.float64())
_TIMES: Final = pa.list_(pa.int64())
_MESSAGES: Final = frozenset({"payload", "stated"})

ITEM_SCHEMA: Final = pa.schema(
    {
        "item_id": pa.string(),
        "log_offset": pa.int64(),
        "set_ms": pa.int64(),
        "deleted": pa.bool_(),
        "title": pa.string(),
        "category_path": _TEXTS,
        "brand": pa.string(),
        "price": pa.float64(),
        "sale_price": pa.float64(),
        "currency": pa.string(),
        "availability": pa.string(),
        "stock_quantity": pa.int64(),
        "release_ms": pa.int64(),
        "promotion_kinds": _TEXTS,
        "promotion_start_ms": _TIMES,
        "promotion_end_ms": _TIMES,
        "promotion_shares": _NUMBERS,
        "payload": pa.binary(),
    }
)
PROFILE_SCHEMA: Final = pa.schema(
    {
        "visitor_id": pa.string(),
        "log_offset": pa.int64(),
        "trait_names": _TEXTS,
        "trait_values": _TEXTS,
        "personalization": pa.bool_(),
        "training": pa.bool_(),
        "marketing": pa.bool_(),
        "payload": pa.binary(),
        "stated": pa.binary(),
    }
)
STATEMENT_SCHEMA: Final = pa.schema(
    {
        "visitor_id": pa.string(),
        "log_offset": pa.int64(),
        "kind": pa.int64(),
        "time_ms": pa.int64(),
        "payload": pa.binary(),
    }
)
DECISION_SCHEMA: Final = pa.schema(
    {
        "log_offset": pa.int64(),
        "slate": pa.int64(),
        "request_id": pa.string(),
        "time_ms": pa.int64(),
        "visitor_id": pa.string(),
        "placement_id": pa.string(),
        "model_version": pa.string(),
        "item_ids": _TEXTS,
        "scores": _NUMBERS,
        "reasons": _TEXTS,
        "applied_controls": _TEXTS,
        "degraded": _TEXTS,
    }
)
DOCUMENT_SCHEMA: Final = pa.schema(
    {
        "kind": pa.string(),
        "document_id": pa.string(),
        "log_offset": pa.int64(),
        "deleted": pa.bool_(),
        "payload": pa.binary(),
    }
)
BAD_SCHEMA: Final = pa.schema(
    {
        "log_offset": pa.int64(),
        "kind": pa.int64(),
        "time_ms": pa.int64(),
        "visitor_id": pa.string(),
        "record_id": pa.string(),
        "reason": pa.string(),
        "payload": pa.binary(),
    }
)


def event_table(
    columns: Mapping[str, list[str] | NDArray[np.int64] | NDArray[np.float64]], arrivals: Mapping[int, int]
) -> pa.Table:
    """Return the columns of `core_rs.event_columns` as rows of `events`; NaN becomes NULL.

    `arrivals` is when the log took each event, Unix milliseconds by offset.
    """
    table = pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})
    arrive_ms = [arrivals[offset] for offset in columns["log_offset"]]  # type: ignore[index]  # whole numbers
    return table.append_column("arrive_ms", pa.array(arrive_ms, pa.int64()))


def item_row(record: LogRecord, change: ItemChange, known: Row | None) -> Row | None:
    """Return the row of an item after a change; None if the row is as new, or the change says that it is older."""
    last_ms = record.time_ms if known is None else known["set_ms"]
    set_ms = change.set_time.ToMilliseconds() if change.HasField("set_time") else max(record.time_ms, last_ms)
    if known is not None and (record.offset <= known["log_offset"] or set_ms < last_ms):
        return None
    item = change.item
    if change.update_paths and not change.deleted:
        item = Item() if known is None or known["deleted"] else Item.FromString(known["payload"])
        _overwrite(item, change)
    unavailable = item.availability == Item.AVAILABILITY_UNAVAILABLE
    return {
        "item_id": change.item.item_id,
        "log_offset": record.offset,
        "set_ms": set_ms,
        "deleted": change.deleted,
        "title": item.title,
        "category_path": list(item.category_path),
        "brand": item.brand,
        "price": _amount(item.price) if item.HasField("price") else None,
        "sale_price": _amount(item.sale_price) if item.HasField("sale_price") else None,
        "currency": item.price.currency_code or item.sale_price.currency_code,
        "availability": "unavailable" if unavailable else "available",
        "stock_quantity": item.stock_quantity if item.HasField("stock_quantity") else None,
        "release_ms": item.release_time.ToMilliseconds() if item.HasField("release_time") else None,
        **_promotions(item),
        "payload": item.SerializeToString(deterministic=True),
    }


def profile_row(record: LogRecord, known: Row | None) -> Row | None:
    """Return the row of a profile after a record of what was stated; None if it is a change and the row is as new.

    A `Stated` that is no newer than the row is merged as what was known before it. Where Kafka brought the row, its
    traits and its answers stay, for the order of the log decides them.

    Raises
    ------
    EngineError : the record cannot be read
    ValueError : it is of another visitor than its key says
    """
    before = b"" if known is None else known_stated(known["stated"], known["payload"])
    kind, change, offset = record.kind, record.payload, record.offset
    if known is not None and offset <= known["log_offset"]:
        if kind != RECORD_KIND_STATED:
            return None
        offset = known["log_offset"]
        before, change = _missing(change, before) if offset >= 0 else change, before
    stated, payload = stated_after(before, kind, record.time_ms, change)
    profile = Profile.FromString(payload)
    if not profile.visitor_id or profile.visitor_id != record.key:
        raise ValueError("`visitor_id` is empty, or not the key of the record")
    consents = {consent.purpose: consent.granted for consent in profile.consents}
    return {
        "visitor_id": profile.visitor_id,
        "log_offset": offset,
        "trait_names": [trait.name for trait in profile.traits],
        "trait_values": [trait.value for trait in profile.traits],
        "personalization": consents.get(CONSENT_PURPOSE_PERSONALIZATION),
        "training": consents.get(CONSENT_PURPOSE_TRAINING),
        "marketing": consents.get(CONSENT_PURPOSE_MARKETING),
        "payload": payload,
        "stated": stated,
    }


def statement_row(record: LogRecord) -> Row:
    """Return the row of a record of what was stated."""
    return {
        "visitor_id": record.key,
        "log_offset": record.offset,
        "kind": record.kind,
        "time_ms": record.time_ms,
        "payload": record.payload,
    }


def statement_of(row: Row) -> LogRecord:
    """Return the record of which `statement_row` made a row."""
    return LogRecord(row["log_offset"], row["kind"], row["time_ms"], row["visitor_id"], "", row["payload"])


def known_stated(stated: bytes, payload: bytes) -> bytes:
    """Return the `Stated` of a row of `profiles`; one of older tables has the answers of its profile without times."""
    if stated:
        return stated
    profile = Profile.FromString(payload)
    answers = [Stated.Answer(consent=consent) for consent in profile.consents]
    return Stated(visitor_id=profile.visitor_id, traits=profile.traits, answers=answers).SerializeToString()


def _missing(payload: bytes, known: bytes) -> bytes:
    """Return what one `Stated` says of purposes that another has no answers to, and its denials of browsers."""
    stated = Stated.FromString(payload)
    answered = {answer.consent.purpose for answer in Stated.FromString(known).answers}
    answers = [answer for answer in stated.answers if answer.consent.purpose not in answered]
    missing = Stated(visitor_id=stated.visitor_id, answers=answers, denials=stated.denials, is_user=stated.is_user)
    return missing.SerializeToString()


def decision_rows(record: LogRecord, decision: Decision) -> list[Row]:
    """Return one row a slate."""
    return [
        {
            "log_offset": record.offset,
            "slate": index,
            "request_id": decision.request.request_id,
            "time_ms": decision.now_ms,
            "visitor_id": record.key,
            "placement_id": slate.placement_id,
            "model_version": decision.model_version,
            "item_ids": list(slate.item_ids),
            "scores": list(slate.scores),
            "reasons": [_name(Reason.Name(reason), "REASON_") for reason in slate.reasons],
            "applied_controls": list(slate.applied_controls),
            "degraded": list(decision.degraded),
        }
        for index, slate in enumerate(decision.slates)
    ]


def document_row(record: LogRecord, change: DocumentChange) -> Row:
    """Return the row of a placement or control after a change."""
    is_placement = change.HasField("placement")
    document = change.placement if is_placement else change.control
    return {
        "kind": "placement" if is_placement else "control",
        "document_id": change.placement.placement_id if is_placement else change.control.control_id,
        "log_offset": record.offset,
        "deleted": change.deleted,
        "payload": document.SerializeToString(deterministic=True),
    }


def bad_row(record: LogRecord, reason: str) -> Row:
    """Return the row of a record that cannot be read."""
    return {
        "log_offset": record.offset,
        "kind": record.kind,
        "time_ms": record.time_ms,
        "visitor_id": record.key,
        "record_id": record.record_id,
        "reason": reason,
        "payload": record.payload,
    }


def table_of(rows: Iterable[Row], schema: pa.Schema) -> pa.Table:
    """Return rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def rows_of(table: pa.Table) -> list[Row]:
    """Return a table as rows, messages as bytes."""
    schema = pa.schema([field.with_type(pa.binary()) if field.name in _MESSAGES else field for field in table.schema])
    rows: list[Row] = table.cast(schema).to_pylist()
    return rows


def _overwrite(item: Item, change: ItemChange) -> None:
    fields = {path.partition(".")[0] for path in change.update_paths} | {"item_id"}
    patch = Item()
    patch.CopyFrom(change.item)
    for field in Item.DESCRIPTOR.fields:
        (item if field.name in fields else patch).ClearField(field.name)  # type: ignore[arg-type]
    item.MergeFrom(patch)


def _promotions(item: Item) -> Row:
    intervals = item.promotion_intervals
    return {
        "promotion_kinds": [_name(PromotionInterval.Kind.Name(one.kind), "KIND_") for one in intervals],
        "promotion_start_ms": [one.start_time.ToMilliseconds() for one in intervals],
        "promotion_end_ms": [one.end_time.ToMilliseconds() for one in intervals],
        "promotion_shares": [one.share if one.HasField("share") else 1.0 for one in intervals],
    }


def _amount(money: Money) -> float:
    return money.units + money.nanos / 1e9


def _name(name: str, prefix: str) -> str:
    """Return the name of an enum's value as tables have it."""
    return name.removeprefix(prefix).lower()
