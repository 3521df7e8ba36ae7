"""Tables of events, as `shopkeeper import` takes them: CSV, JSON lines or Parquet."""

import datetime as dt
import io
import json
from pathlib import Path

import numpy as np
import polars as pl

from trainers.dataset import ACTIONS
from trainers.offline.files import ReadError

_NEEDED = ("user_id", "item_id", "timestamp")
_PARQUET = b"PAR1"
_LEAST_MS = 1e11
"""Numbers below are seconds: as milliseconds they would lie in 1973."""
_MOST_MS = 9e15
"""What is not below is no time."""


def is_event_table(content: bytes) -> bool:
    """Return whether bytes are Parquet, JSON lines of events or CSV with a header of events."""
    first = content.lstrip().partition(b"\n")[0]
    return content.startswith(_PARQUET) or _is_json_line(first) or b"item_id" in first


def read_events(path: Path, content: bytes, *, by_session: bool = False, seed: int | None = None) -> pl.DataFrame:
    """Return the event lines of a table with user_id, item_id, timestamp and, if there, event_type and event_id.

    With `by_session` the column session_id, where it is there and filled in, stands for the visitor.

    Times are Unix seconds or milliseconds, or ISO 8601 with or without a zone (UTC then). Without event_id the lines
    of one visitor and one time are one event, e.g. a basket. With `seed` every line is an event, and those of one
    visitor and one time, which have no order of their own, are in one drawn by it.

    Raises
    ------
    ReadError
        When a column is missing or a value cannot be read; the text names the line.
    """
    table = _table(path, content)
    missing = [name for name in _NEEDED if name not in table.columns]
    if missing:
        raise ReadError(path, 1, f"the column {missing[0]} is missing", f"name the columns {', '.join(_NEEDED)}")
    owner = pl.col("user_id").cast(pl.String)
    if by_session and "session_id" in table.columns:
        owner = pl.coalesce(pl.col("session_id").cast(pl.String), owner)
    action = pl.col("event_type").cast(pl.String) if "event_type" in table.columns else pl.lit("view")
    events = table.select(
        owner.alias("visitor_id"),
        pl.col("item_id").cast(pl.String),
        action.str.to_lowercase().alias("event_type"),
        _time_ms(table["timestamp"]).alias("time_ms"),
        *([pl.col("event_id").cast(pl.String)] if "event_id" in table.columns else []),
    )
    _check(path, events)
    if "event_id" not in events.columns:
        named = pl.col("visitor_id") + "/" + pl.col("time_ms").cast(pl.String).str.zfill(15)
        events = events.with_columns(named.alias("event_id"))
    if seed is None:
        return events.sort("visitor_id", "time_ms", maintain_order=True)
    drawn = events[np.random.default_rng(seed).permutation(len(events))]
    return in_this_order(drawn.sort("visitor_id", "time_ms", maintain_order=True))


def in_this_order(lines: pl.DataFrame) -> pl.DataFrame:
    """Return event lines, each an event of its own, so that a `Dataset` keeps those of one time as they are here."""
    return lines.with_columns(pl.int_range(pl.len()).cast(pl.String).str.zfill(15).alias("event_id"))


def _table(path: Path, content: bytes) -> pl.DataFrame:
    try:
        if content.startswith(_PARQUET):
            return pl.read_parquet(io.BytesIO(content))
        if content.lstrip().startswith(b"{"):
            return pl.read_ndjson(io.BytesIO(content))
        return pl.read_csv(io.BytesIO(content), infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ReadError(
            path, None, f"cannot be read ({reason})", "give CSV, JSON lines or Parquet of events"
        ) from error


def _time_ms(column: pl.Series) -> pl.Series:
    """Return Unix milliseconds, null where a value is no time."""
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("ms")
    if column.dtype == pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        moments = column.filter(numbers.is_null()).drop_nulls().unique().to_list()
        known = pl.Series([_iso_ms(text) for text in moments], dtype=pl.Int64)
        texts = column.replace_strict(pl.Series(moments, dtype=pl.String), known, default=None, return_dtype=pl.Int64)
    else:
        numbers, texts = column.cast(pl.Float64), pl.Series([None] * len(column), dtype=pl.Int64)
    numbers = pl.select(pl.when(numbers.abs() < _MOST_MS).then(numbers)).to_series()  # NaN is no time
    as_ms = pl.select(pl.when(numbers.abs() < _LEAST_MS).then(numbers * 1000).otherwise(numbers)).to_series()
    return as_ms.cast(pl.Int64).fill_null(0).zip_with(numbers.is_not_null(), texts)


def _iso_ms(text: str) -> int | None:
    """Return Unix milliseconds of an ISO 8601 text, None where it is none."""
    try:
        moment = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _check(path: Path, events: pl.DataFrame) -> None:
    first = 1 if path.suffix in {".json", ".jsonl", ".parquet"} else 2
    rows = events.with_row_index("row", first)
    bad = rows.filter(pl.any_horizontal(pl.col("visitor_id", "item_id", "time_ms").is_null()))
    if len(bad):
        raise ReadError(path, bad["row"][0], "user_id, item_id or timestamp is missing or no time", "fill it in")
    unknown = rows.filter(~pl.col("event_type").is_in(list(ACTIONS)))
    if len(unknown):
        name, row = unknown["event_type"][0], unknown["row"][0]
        raise ReadError(path, row, f"the event type `{name}` is unknown", f"give one of {', '.join(ACTIONS)}")


def _is_json_line(line: bytes) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and "item_id" in value
