"""Files as batches of text columns: CSV, JSON lines and Parquet, told apart by their content.

Every value becomes text here, so that one set of checks (`server.importing.checks`) serves all formats.
"""

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar, cast

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from server.importing.report import ImportFault, Rejection

if TYPE_CHECKING:
    from _csv import Reader

BATCH_ROWS = 50_000
ROW = "#row"
"""Column of the number of each row, as in `Rejection`."""
LIST_SEPARATOR = "\x1f"
"""Between the values of a list, e.g. the levels of a category path."""
OBJECT = "\x1e{"
"""Start of a JSON object among the values, which no column takes."""

_T = TypeVar("_T")
_GZIP, _PARQUET, _ZIP = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
_DELIMITERS = ",;\t|"
_BAD_ENCODING = "is not UTF-8; save the file as UTF-8"


@dataclass(frozen=True)
class Batch:
    """Some rows of a file.

    Attributes
    ----------
    frame : pl.DataFrame
        Text columns of the file, and `ROW`.
    rejections : list[Rejection]
        Rows that could not be read at all.
    """

    frame: pl.DataFrame
    rejections: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """An opened file: its columns, and its rows by batches."""

    columns: list[str]
    batches: Iterator[Batch]


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open the table in a file, plain or gzipped.

    Raises
    ------
    ImportFault
        When the file is missing, empty, damaged or of another kind; while batches are read too.
    """
    with ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise ImportFault(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
        head = _head(path, file)
        if head.startswith(_PARQUET):
            yield _parquet(path, file)
            return
        if path.suffix.lower() == ".parquet" and _is_garbled(head):
            raise ImportFault(f"{path} is no Parquet file, whatever its name says.", "Copy or make it again.")
        if head.startswith(_ZIP):
            raise ImportFault(f"{path} is a ZIP archive.", "Unpack it and import the file inside.")
        if head.startswith(_GZIP):
            file = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=file)))
            head = _head(path, file)
        start = _text_start(path, head)
        lines = stack.enter_context(io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=""))
        yield _json_lines(path, lines) if start.startswith(b"{") else _csv(path, lines)


def _head(path: Path, file: IO[bytes]) -> bytes:
    head = _guard(path, lambda: file.read(4096))
    file.seek(0)
    return head


def _guard(path: Path, read: Callable[[], _T]) -> _T:
    try:
        return read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ImportFault(f"{path} is a damaged gzip file: {error}.", "Copy or make it again.") from error


def _text_start(path: Path, head: bytes) -> bytes:
    if head.startswith(_UTF16):
        raise ImportFault(f"{path} is UTF-16.", "Save it as UTF-8.")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start:
        raise ImportFault(f"{path} is empty.", "Write a header and rows, or JSON lines.")
    if b"\0" in start.partition(b"\n")[0]:
        raise ImportFault(f"{path} is binary.", "Give CSV, JSON lines or Parquet, gzipped or not.")
    if start.startswith(b"["):
        raise ImportFault(f"{path} is one JSON array.", "Write one JSON object a line, e.g. with `jq -c '.[]'`.")
    return start


def _is_garbled(head: bytes) -> bool:
    return b"\0" in head or not _is_utf8(head.decode(errors="surrogateescape"))


def _is_utf8(text: str) -> bool:
    return text.isascii() or _ESCAPED_BYTE.search(text) is None


def _csv(path: Path, lines: IO[str]) -> Table:
    first = _guard(path, lines.readline)
    delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise ImportFault(f"{path} has the column {repeated[0]} twice.", "Rename one of them.")
    if not all(map(_is_utf8, header)):
        raise ImportFault(f"The header of {path} {_BAD_ENCODING.partition(';')[0]}.", "Save the file as UTF-8.")
    reader = csv.reader(lines, delimiter=delimiter)
    return Table([name for name in header if name], _csv_batches(path, header, reader))


def _csv_batches(path: Path, header: list[str], reader: "Reader") -> Iterator[Batch]:
    while True:
        rows: list[list[str]] = []
        numbers: list[int] = []
        bad: list[Rejection] = []
        for number, row in _numbered(path, reader):
            if len(row) != len(header):
                reason = f"has another number of fields than the header ({len(header)}); quote fields with delimiters"
                bad.append(Rejection(number, "", reason, f"{len(row)} fields"))
            elif not all(map(_is_utf8, row)):
                bad.append(Rejection(number, "", _BAD_ENCODING, ascii(row)[:200]))
            else:
                rows.append(row)
                numbers.append(number)
        if not rows and not bad:
            return
        values = zip(*rows, strict=True) if rows else [()] * len(header)
        data = {name: list(column) for name, column in zip(header, values, strict=True) if name}
        yield Batch(_frame(data, numbers), bad)


def _numbered(path: Path, reader: "Reader") -> Iterator[tuple[int, list[str]]]:
    """Yield up to a batch of rows that are not blank, each with the line it starts at."""
    for _ in range(BATCH_ROWS):
        number = reader.line_num + 2
        try:
            row = _guard(path, lambda: next(reader, None))
        except csv.Error as error:
            raise ImportFault(f"{path}, line {number}: {error}.", "Look for a quote that is not closed.") from error
        if row is None:
            return
        if row:
            yield number, row


def _frame(data: dict[str, list[str]], numbers: list[int]) -> pl.DataFrame:
    schema = dict.fromkeys(data, pl.String)
    frame = pl.DataFrame(data, schema=schema).with_columns(pl.all().str.strip_chars().replace("", None))
    return frame.with_columns(pl.Series(ROW, numbers, pl.Int64))


def _json_lines(path: Path, lines: IO[str]) -> Table:
    batches = _json_batches(path, lines)
    first = next(batches, Batch(pl.DataFrame()))
    return Table([name for name in first.frame.columns if name != ROW], itertools.chain([first], batches))


def _json_batches(path: Path, lines: IO[str]) -> Iterator[Batch]:
    numbered = enumerate(iter(lambda: _guard(path, lines.readline), ""), 1)
    while chunk := list(itertools.islice(numbered, BATCH_ROWS)):
        objects: list[dict[str, object]] = []
        numbers: list[int] = []
        bad: list[Rejection] = []
        for number, line in chunk:
            if not line.strip():
                continue
            value = _json_object(line)
            if isinstance(value, str):
                bad.append(Rejection(number, "", value, ascii(line.strip())[:200]))
            else:
                objects.append(value)
                numbers.append(number)
        names = dict.fromkeys(name for value in objects for name in value)
        yield Batch(_frame({name: [_as_text(value.get(name)) for value in objects] for name in names}, numbers), bad)


def _json_object(line: str) -> dict[str, object] | str:
    """Return the object on a line, or why there is none."""
    if not _is_utf8(line):
        return _BAD_ENCODING
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return "is not JSON; write one object a line"
    return value if isinstance(value, dict) else "is not a JSON object; write one object a line"


def _as_text(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case list():
            return LIST_SEPARATOR.join(map(_as_text, value))
        case dict():
            return f"\x1e{json.dumps(value)}"
        case _:
            return str(value)


def _parquet(path: Path, opened: IO[bytes]) -> Table:
    try:
        file = pq.ParquetFile(opened)
    except (pa.ArrowException, OSError) as error:
        raise ImportFault(f"{path} is a damaged Parquet file.", "Copy or make it again.") from error
    names = file.schema_arrow.names
    if len(set(names)) < len(names):
        raise ImportFault(f"{path} has a column twice: {', '.join(names)}.", "Rename one of them.")
    return Table(names, _parquet_batches(path, file))


def _parquet_batches(path: Path, file: pq.ParquetFile) -> Iterator[Batch]:
    number = 1
    chunks = file.iter_batches(BATCH_ROWS)
    while True:
        try:
            chunk = next(chunks, None)
        except (pa.ArrowException, OSError) as error:
            raise ImportFault(f"{path} is damaged after row {number - 1}.", "Copy or make it again.") from error
        if chunk is None:
            return
        frame = pl.DataFrame(pl.from_arrow(chunk))
        columns = [_parquet_text(path, frame[name]) for name in frame.columns]
        numbers = pl.int_range(number, number + len(frame), eager=True).alias(ROW)
        yield Batch(pl.DataFrame([*columns, numbers]))
        number += len(frame)


def _parquet_text(path: Path, column: pl.Series) -> pl.Series:
    """Return a column as text; whole numbers kept as floats (pandas does that beside nulls) lose their `.0`."""
    kind = column.dtype
    if isinstance(kind, pl.Datetime):
        moments = column if kind.time_zone else column.dt.replace_time_zone("UTC")
        text = moments.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
    elif isinstance(kind, pl.List):
        text = column.list.eval(pl.element().cast(pl.String)).list.join(LIST_SEPARATOR, ignore_nulls=True)
    elif kind.is_float() and bool(((column == column.round()) | column.is_nan()).fill_null(True).all()):
        text = column.fill_nan(None).cast(pl.Int64, strict=False).cast(pl.String)
    elif isinstance(kind, (pl.Struct, pl.Binary, pl.Array, pl.Object)):
        raise ImportFault(f"{path}: the column {column.name} has the type {kind}.", "Store it as text or numbers.")
    else:
        text = column.cast(pl.String)
    return text.str.strip_chars().replace("", None)
