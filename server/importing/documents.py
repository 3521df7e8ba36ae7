"""Rows of items and profiles as records; numbers and dates checked here, limits by the engine's own rules."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import core_rs
from server.importing.readers import LIST_SEPARATOR
from server.importing.writing import as_timestamp, item_record, money, profile_record
from server.ports import NewRecord
from shopkeeper.v1 import common_pb2, item_pb2, profile_service_pb2

_TRUE, _FALSE = frozenset({"1", "true", "yes", "y"}), frozenset({"0", "false", "no", "n"})
_MAX_PRICE = 1e9


class FieldFault(Exception):  # noqa: N818 - a fault of a row, not of the program
    """A row cannot be taken; `field` is the column at fault."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Reading:
    """How one kind of row becomes a record.

    Attributes
    ----------
    required, optional : tuple[str, ...]
        Columns read.
    prefix : str
        Columns that start with it are read as named values.
    record : Callable[[dict[str, str], str, int], NewRecord]
        Makes the record from the set columns, the currency and the time the row was true; raises FieldFault.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    prefix: str
    record: Callable[[dict[str, str], str, int], NewRecord]

    @property
    def names(self) -> tuple[str, ...]:
        """Every column read, for people."""
        return (*self.required, *self.optional, f"{self.prefix}NAME")

    def takes(self, column: str) -> bool:
        """Return whether a column is read."""
        return column in self.required or column in self.optional or column.startswith(self.prefix)


def _item(row: dict[str, str], currency: str, set_time_ms: int) -> NewRecord:
    item = item_pb2.Item(
        item_id=row.get("item_id", ""),
        title=row.get("title", ""),
        category_path=_list(row.get("category_path", ""), ">"),
        brand=row.get("brand", ""),
        image_uri=row.get("image_uri", ""),
        uri=row.get("uri", ""),
    )
    for field, target in (("price", item.price), ("sale_price", item.sale_price)):
        if field in row:
            target.CopyFrom(money(_number(row, field), currency))
    if "stock_quantity" in row:
        item.stock_quantity = int(_number(row, "stock_quantity"))
    if "available" in row:
        names = ("AVAILABILITY_UNAVAILABLE", "AVAILABILITY_AVAILABLE")
        item.availability = item_pb2.Item.Availability.Value(names[_truth(row, "available")])
    if "release_time" in row:
        item.release_time.CopyFrom(as_timestamp(_time_ms(row, "release_time")))
    item.promotion_intervals.extend(map(_promotion, _list(row.get("promotions", ""), "|")))
    for name, value in row.items():
        if name.startswith("attribute."):
            item.attributes.add(name=name.removeprefix("attribute."), values=_list(value, "|"))
    _check(lambda: core_rs.check_item(item.SerializeToString(), 0))
    return item_record(item, set_time_ms)


def _profile(row: dict[str, str], _currency: str, set_time_ms: int) -> NewRecord:
    profile = profile_service_pb2.Profile(visitor_id=row.get("user_id", ""))
    for name, value in row.items():
        if name.startswith("trait."):
            profile.traits.add(name=name.removeprefix("trait."), value=value)
    for purpose in ("personalization", "training", "marketing"):
        if (field := f"consent_{purpose}") in row:
            number = common_pb2.ConsentPurpose.Value(f"CONSENT_PURPOSE_{purpose.upper()}")
            profile.consents.add(purpose=number, granted=_truth(row, field))
    _check(lambda: core_rs.check_profile(profile.SerializeToString()))
    return profile_record(profile, set_time_ms)


ITEMS = Reading(
    required=("item_id",),
    optional=(
        "title",
        "category_path",
        "brand",
        "price",
        "sale_price",
        "available",
        "stock_quantity",
        "release_time",
        "promotions",
        "image_uri",
        "uri",
    ),
    prefix="attribute.",
    record=_item,
)
PROFILES = Reading(
    required=("user_id",),
    optional=("consent_personalization", "consent_training", "consent_marketing"),
    prefix="trait.",
    record=_profile,
)


def _check(check: Callable[[], None]) -> None:
    try:
        check()
    except core_rs.InvalidRequestError as error:
        field = error.field.partition("].")[2] or error.field.removeprefix("profile.")
        raise FieldFault(field.replace("visitor_id", "user_id"), str(error)) from error


def _list(text: str, separator: str) -> list[str]:
    separator = LIST_SEPARATOR if LIST_SEPARATOR in text else separator
    return [part.strip() for part in text.split(separator) if part.strip()]


def _number(row: dict[str, str], field: str) -> float:
    try:
        number = float(row[field])
    except ValueError:
        raise FieldFault(field, "is no number") from None
    if not math.isfinite(number) or not 0 <= number <= _MAX_PRICE:
        raise FieldFault(field, "must lie between 0 and 1e9")
    return number


def _truth(row: dict[str, str], field: str) -> bool:
    word = row[field].lower()
    if word not in _TRUE | _FALSE:
        raise FieldFault(field, "must be true or false")
    return word in _TRUE


def _promotion(text: str) -> item_pb2.PromotionInterval:
    """Return the interval that reads `KIND START/END` or `KIND START/END SHARE`."""
    try:
        kind, span, *share = text.split()
        start, end = (as_timestamp(_moment_ms(moment)) for moment in span.split("/"))
        number = item_pb2.PromotionInterval.Kind.Value(f"KIND_{kind.upper()}")
        interval = item_pb2.PromotionInterval(kind=number, start_time=start, end_time=end)
        if share:
            (interval.share,) = map(float, share)
    except ValueError:
        raise FieldFault("promotions", "must read like `mailer 2026-03-02/2026-03-09 0.5`, parted by |") from None
    return interval


def _time_ms(row: dict[str, str], field: str) -> int:
    try:
        return _moment_ms(row[field])
    except ValueError:
        raise FieldFault(field, "is no ISO 8601 time, e.g. 2026-03-01T12:00:00Z") from None


def _moment_ms(text: str) -> int:
    """Return Unix milliseconds of an ISO 8601 time, UTC unless it says otherwise; ValueError if it is none."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
