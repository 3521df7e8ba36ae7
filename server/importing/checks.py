"""What a row of events must satisfy: text in, typed columns and refusals out."""

from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

from server.importing.readers import ROW
from server.importing.report import Rejection
from shopkeeper.v1 import event_pb2

REQUIRED = ("user_id", "item_id", "event_type", "timestamp")
OPTIONAL = ("price", "quantity", "session_id", "store_id", "query", "order_id")

_EVENT_TYPES = {name.removeprefix("EVENT_TYPE_").lower(): number for name, number in event_pb2.EventType.items()}
_SYNONYMS = {
    "addtocart": "add_to_cart",
    "buy": "purchase",
    "cart": "add_to_cart",
    "order": "purchase",
    "pageview": "view",
    "removefromcart": "remove_from_cart",
    "transaction": "purchase",
}
EVENT_TYPES = {
    **{name: number for name, number in _EVENT_TYPES.items() if number},
    **{name: _EVENT_TYPES[meaning] for name, meaning in _SYNONYMS.items()},
}
"""Number of every event type by the words that mean it, in lower case."""

_SEARCH = event_pb2.EVENT_TYPE_SEARCH
_DAY_MS = 86_400_000
_EARLIEST_MS = 631_152_000_000
_UNITS = (
    ("seconds", 1e11, 1e3),
    ("milliseconds", 1e14, 1.0),
    ("microseconds", 1e17, 1e-3),
    ("nanoseconds", float("inf"), 1e-6),
)
_UTC = r"\s*(Z|UTC|GMT)$"
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"
_ID_BYTES, _QUERY_BYTES, _MAX_QUANTITY, _MAX_PRICE = 256, 1024, 1_000_000, 1e9


@dataclass(frozen=True)
class TimeReading:
    """How a column of times is read, settled by its first rows.

    Attributes
    ----------
    factor : float
        Milliseconds in one unit of a plain number.
    note : str
        What a person should know about it.
    """

    factor: float
    note: str

    @classmethod
    def of(cls, times: pl.Series) -> "TimeReading":
        """Return the reading that fits these text values: a unit by their size, or ISO 8601."""
        numbers = times.filter(times.str.contains(_NUMBER).fill_null(value=False)).cast(pl.Float64, strict=False)
        if not len(numbers):
            zoned = times.str.replace(_UTC, "+00:00").str.contains(r"[+-]\d\d:?\d\d$").fill_null(value=True).all()
            return cls(1.0, "ISO 8601" if zoned else "ISO 8601 without a time zone, read as UTC")
        median = float(numbers.abs().median() or 0)  # type: ignore[arg-type]  # median of numbers is a number
        name, _, factor = next(unit for unit in _UNITS if median < unit[1])
        return cls(factor, f"Unix {name}")

    def milliseconds(self, column: str) -> pl.Expr:
        """Return the expression for Unix milliseconds of a text column; null where it is no time."""
        text = pl.col(column).str.replace(_UTC, "+00:00").str.replace(" ", "T", literal=True)
        number = pl.when(text.str.contains(_NUMBER)).then(text).cast(pl.Float64, strict=False).mul(self.factor).round(0)
        moments = [
            text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="ms", strict=False).dt.replace_time_zone(None),
            text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="ms", strict=False),
            text.str.to_datetime("%Y-%m-%dT%H:%M", time_unit="ms", strict=False),
            text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms")),
        ]
        return pl.coalesce(number.cast(pl.Int64, strict=False), *(moment.dt.epoch("ms") for moment in moments))


def check_events(frame: pl.DataFrame, times: TimeReading, now_ms: int) -> tuple[pl.DataFrame, list[Rejection]]:
    """Return typed lines of events, and the rows that were refused.

    Parameters
    ----------
    frame : pl.DataFrame
        Text columns `REQUIRED` and `OPTIONAL`, and `ROW`.
    times : TimeReading
        How to read `timestamp`.
    now_ms : int
        Present time, Unix milliseconds; events of more than a day later are refused.

    Returns
    -------
    tuple[pl.DataFrame, list[Rejection]]
        The columns of `server.importing.writing.LINES`, and the refusals.
    """
    kind = pl.col("event_type").str.to_lowercase().str.replace_all(r"[\s-]+", "_").str.strip_prefix("event_type_")
    typed = frame.with_columns(
        kind.replace_strict(EVENT_TYPES, default=None, return_dtype=pl.Int32).alias("_type"),
        times.milliseconds("timestamp").alias("_time"),
        pl.col("price").cast(pl.Float64, strict=False).alias("_price"),
        pl.col("quantity").cast(pl.Float64, strict=False).alias("_quantity"),
    )
    faults = _faults(now_ms + _DAY_MS)
    problem = pl.coalesce(*(pl.when(bad).then(pl.lit(index)) for index, (_, _, bad) in enumerate(faults)))
    typed = typed.with_columns(problem.alias("_problem"))
    refused = typed.filter(pl.col("_problem").is_not_null())
    rejections = []
    for row in refused.iter_rows(named=True):
        name, reason, _ = faults[row["_problem"]]
        rejections.append(Rejection(row[ROW], name, reason, str(row[name] or "")))
    return _lines(typed.filter(pl.col("_problem").is_null())), rejections


def _faults(latest: int) -> list[tuple[str, str, pl.Expr]]:
    """Return field, reason and condition of every fault, in the order they are reported."""
    search = pl.col("_type") == _SEARCH
    price, quantity = pl.col("_price"), pl.col("_quantity")
    known = ", ".join(name for name in EVENT_TYPES if name not in _SYNONYMS)
    faults = [
        ("event_type", "is required", pl.col("event_type").is_null()),
        ("event_type", f"is unknown; known are {known}", pl.col("_type").is_null()),
        ("user_id", "is required", pl.col("user_id").is_null()),
        ("item_id", "is required", pl.col("item_id").is_null() & ~search),
        ("query", "is required for a search", pl.col("query").is_null() & search),
        ("timestamp", "is required", pl.col("timestamp").is_null()),
        ("timestamp", "is no time; give Unix time or ISO 8601", pl.col("_time").is_null()),
        ("timestamp", "lies before 1990; is its unit that of the other rows?", pl.col("_time") < _EARLIEST_MS),
        ("timestamp", "lies after tomorrow; is its unit that of the other rows?", pl.col("_time") > latest),
        ("price", "is no number", pl.col("price").is_not_null() & price.is_null()),
        ("price", "must lie between 0 and 1e9", ~price.is_between(0, _MAX_PRICE)),
        ("quantity", "is no number", pl.col("quantity").is_not_null() & quantity.is_null()),
        (
            "quantity",
            "must be a whole number from 0 to 1,000,000",
            ~quantity.is_between(0, _MAX_QUANTITY) | (quantity != quantity.floor()),
        ),
    ]
    for name in ("user_id", "item_id", "session_id", "store_id", "order_id"):
        faults.append((name, f"is longer than {_ID_BYTES} bytes", pl.col(name).str.len_bytes() > _ID_BYTES))
        faults.append((name, "holds a control character", pl.col(name).str.contains(r"[\x00-\x1f\x7f]")))
    faults.append(("query", f"is longer than {_QUERY_BYTES} bytes", pl.col("query").str.len_bytes() > _QUERY_BYTES))
    return faults


def _lines(typed: pl.DataFrame) -> pl.DataFrame:
    texts = [pl.col(name).fill_null("") for name in ("item_id", "session_id", "store_id", "query")]
    numbers = [
        pl.col("_quantity").fill_null(1).cast(pl.Int32).alias("quantity"),
        (pl.col("_price") * 1e6).round(0).fill_null(-1).cast(pl.Int64).alias("price_micros"),
    ]
    ordered = pl.col("order_id").is_not_null()
    owner = [pl.col("user_id"), pl.col("_type")]
    identity = (
        pl.when(ordered)
        .then(pl.concat_str([pl.lit("order"), pl.col("order_id"), *owner], separator="\x1f"))
        .otherwise(pl.concat_str([pl.lit("row"), *owner, pl.col("_time"), *texts, *numbers], separator="\x1f"))
    )
    return typed.select(
        identity.map_batches(_event_ids, return_dtype=pl.String).alias("event_id"),
        pl.col("_type").alias("event_type"),
        pl.col("_time").alias("time_ms"),
        pl.col("user_id").alias("visitor_id"),
        *texts,
        *numbers,
        ordered.alias("ordered"),
        pl.col(ROW),
    )


def _event_ids(identities: pl.Series) -> pl.Series:
    """Return an id that depends on the identity alone, so that an event keeps its id in every import."""
    ids = [f"import-{blake2b(text.encode(), digest_size=16).hexdigest()}" for text in identities]
    return pl.Series(ids, dtype=pl.String)
