"""Files of histories as event tables: lines of ids, JSON of lists, CSV of baskets, and tables of events."""

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import polars as pl

from trainers.offline.events import in_this_order, is_event_table, read_events
from trainers.offline.files import ReadError, content_of, text_of

MINUTE_MS = 60_000
"""Made-up time between the lines of files that have no times of their own."""


class Prefix(NamedTuple):
    """One question of a session test: what came before, with type and time of each event, and the item that came next.

    Times of a file without any are made up, from 0 on, and its events are views.
    """

    items: list[str]
    actions: list[str]
    time_ms: list[int]
    target: str


def read_histories(path: Path, *, ordered: bool, seed: int = 0) -> pl.DataFrame:
    """Return the event lines of a file of histories, one visitor a line.

    The file holds lines "visitor item item ...", one JSON object {visitor: [item, ...]}, or a table of events.

    Parameters
    ----------
    path : Path
    ordered : bool
        Whether the items of a line are in order of time; if not, all have one time.
    seed : int
        Draws the order of a visitor's events of one time, where `ordered`.

    Raises
    ------
    ReadError
        When the file is none of these; the text names the line.
    """
    content = content_of(path)
    if is_event_table(content):
        return read_events(path, content, seed=seed if ordered else None)
    text = text_of(path, content)
    histories = _json_histories(path, text) if text.lstrip().startswith("{") else _line_histories(path, text)
    if ordered:
        return _ordered((visitor, items, 0) for visitor, items in histories)
    return _frame((visitor, items, 0) for visitor, items in histories)


def read_sessions(path: Path, *, seed: int = 0) -> pl.DataFrame:
    """Return the event lines of a file with one session of item ids a line, sessions in order of time; or of events.

    Events are sessions by session_id, or by user_id where there is none; `seed` draws the order of those of one time.
    """
    content = content_of(path)
    if is_event_table(content):
        return read_events(path, content, by_session=True, seed=seed)
    lines = _tokens(path, text_of(path, content))
    return _ordered((f"{number:09}", items, number) for number, items in lines)


def read_prefixes(path: Path, *, seed: int = 0) -> list[Prefix]:
    """Return the questions of a session test: lines "item item ...<TAB>target", or every prefix of a file of events.

    `seed` draws the order of a session's events of one time.
    """
    content = content_of(path)
    if is_event_table(content):
        sessions = (
            read_events(path, content, by_session=True, seed=seed)
            .group_by("visitor_id", maintain_order=True)
            .agg("item_id", "event_type", "time_ms")
        )
        return [
            Prefix(items[:end], actions[:end], times[:end], items[end])
            for _, items, actions, times in sessions.iter_rows()
            for end in range(1, len(items))
        ]
    return list(_prefixes(path, text_of(path, content)))


def read_baskets(path: Path) -> tuple[pl.DataFrame, bool]:
    """Return the event lines of a file with one basket a line, and whether the baskets have visitors.

    The file holds lines of items with commas between them (baskets of nobody), lines "visitor item item ..." in order
    of time, or a table of events, whose lines of one visitor and one time are a basket.
    """
    content = content_of(path)
    if is_event_table(content):
        return read_events(path, content), True
    text = text_of(path, content)
    if "," in text:
        rows = [[item.strip() for item in line.split(",")] for line in text.splitlines() if line.strip()]
        for number, row in enumerate(rows, 1):
            if not all(row):
                raise ReadError(path, number, "has an item without a name", "take the comma out or name the item")
        return _frame((f"{number:09}", row, number) for number, row in enumerate(rows)), False
    return _frame((items[0], items[1:], number) for number, items in _visitor_lines(path, text)), True


def read_attributes(path: Path) -> pl.DataFrame:
    """Return an item table with `title` from a file of attributes: JSON {item: [attribute, ...]}, or CSV with item_id.

    A CSV file may have title, category_path (levels with ` > ` between) and brand.
    """
    text = text_of(path, content_of(path))
    if text.lstrip().startswith("{"):
        rows = [
            (item, " ".join(f"a{name}".replace(" ", "_") for name in names))
            for item, names in _json_histories(path, text)
        ]
        return pl.DataFrame(rows, schema={"item_id": pl.String, "title": pl.String}, orient="row")
    table = pl.read_csv(io.StringIO(text), infer_schema=False)
    if "item_id" not in table.columns:
        raise ReadError(
            path, 1, "the column item_id is missing", "name the columns item_id, title, category_path, brand"
        )
    if "category_path" in table.columns:
        table = table.with_columns(pl.col("category_path").fill_null("").str.split(" > "))
    return table.unique("item_id", keep="first", maintain_order=True)


def _tokens(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield number and items of every line that is not blank."""
    for number, line in enumerate(io.StringIO(text), 1):
        if "\t" in line.strip():
            raise ReadError(path, number, "has a tab", "put blanks between items; lines with targets are a test file")
        if items := line.split():
            yield number, items


def _visitor_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(io.StringIO(text), 1):
        items = line.split()
        if len(items) == 1:
            fix = "write the visitor, then at least one item; a table has the columns user_id, item_id and timestamp"
            raise ReadError(path, number, f"has only `{items[0]}`", fix)
        if items:
            yield number, items


def _line_histories(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for number, (visitor, *items) in _visitor_lines(path, text):
        if visitor in seen:
            raise ReadError(path, number, f"has the visitor `{visitor}` again", "write one line for each visitor")
        seen.add(visitor)
        yield visitor, items


def _json_histories(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    try:
        table = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise ReadError(path, line, f"is not JSON ({error})", "write one object {visitor: [item, ...]}") from error
    for visitor, items in table.items():
        if not isinstance(items, list) or not all(isinstance(item, (str, int)) for item in items):
            raise ReadError(path, None, f"has no list of items for `{visitor}`", "write {visitor: [item, ...]}")
        yield visitor, [str(item) for item in items]


def _prefixes(path: Path, text: str) -> Iterator[Prefix]:
    for number, line in enumerate(io.StringIO(text), 1):
        if not line.strip():
            continue
        before, tab, after = line.rstrip("\n").partition("\t")
        if not tab or not before.split() or len(after.split()) != 1:
            raise ReadError(path, number, "is not a question", 'write "item item ...", a tab and the one next item')
        items = before.split()
        times = [place * MINUTE_MS for place in range(len(items))]
        yield Prefix(items, ["view"] * len(items), times, after.strip())


def _ordered(histories: Iterable[tuple[str, Sequence[str], int]]) -> pl.DataFrame:
    """Return event lines of (visitor, items, minute of the first), each item a minute after the one before."""
    rows = [
        (visitor, item, (minute + place) * MINUTE_MS)
        for visitor, items, minute in histories
        for place, item in enumerate(items)
    ]
    return in_this_order(_events(rows, "view"))


def _frame(baskets: Iterable[tuple[str, Sequence[str], int]]) -> pl.DataFrame:
    """Return event lines of (visitor, items, number of the basket), those of a basket at one time."""
    rows = [(visitor, item, number * MINUTE_MS) for visitor, items, number in baskets for item in items]
    named = pl.col("visitor_id") + "/" + (pl.col("time_ms") // MINUTE_MS).cast(pl.String).str.zfill(9)
    return _events(rows, "purchase").with_columns(named.alias("event_id"))


def _events(rows: Sequence[tuple[str, str, int]], action: Literal["view", "purchase"]) -> pl.DataFrame:
    schema = {"visitor_id": pl.String, "item_id": pl.String, "time_ms": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(event_type=pl.lit(action))
