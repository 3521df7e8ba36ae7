"""Anyone's own files of events, items or profiles into the log."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow.parquet as pq

from server.importing import documents
from server.importing.checks import OPTIONAL, REQUIRED, TimeReading, check_events
from server.importing.readers import OBJECT, ROW, Batch, Table, open_table
from server.importing.report import ImportFault, ImportReport, RejectedRows, Rejection
from server.importing.writing import GROUP, event_records, grouped, known_items, store
from server.ports import EventLog, NewRecord

Kind = Literal["events", "items", "profiles"]

_LINES_AN_EVENT = 500
_READINGS: Mapping[Kind, documents.Reading] = {"items": documents.ITEMS, "profiles": documents.PROFILES}


@dataclass(frozen=True)
class Options:
    """How a file is read.

    Attributes
    ----------
    columns : Mapping[str, str]
        Our name of a column by its name in the file, where they differ.
    event_type : str
        Type of every event; empty where the file has a column for it.
    currency : str
        ISO 4217 code of the prices.
    now_ms : int
        Present time, Unix milliseconds; later events are refused.
    rejected_dir : Path
        Folder that gets `<name>.rejected.jsonl` when rows are refused.
    dry_run : bool
        Check and count, but append nothing.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    event_type: str = ""
    currency: str = "USD"
    now_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    rejected_dir: Path = Path("data/rejected")
    dry_run: bool = False


def import_file(log: EventLog, path: Path, kind: Kind, options: Options) -> ImportReport:
    """Return the counts of an import; the same file again changes nothing.

    Parameters
    ----------
    log : EventLog
        Log to append to.
    path : Path
        CSV, JSON lines or Parquet, gzipped or not.
    kind : {"events", "items", "profiles"}
        What a row is.
    options : Options
        How the file is read.

    Raises
    ------
    ImportFault
        When the file as a whole cannot be read; rows before the fault may be in the log.
    LogUnavailableError
        When the log cannot be written.
    """
    _check_targets(options.columns, kind)
    report = ImportReport(str(path), kind, dry_run=options.dry_run)
    with (
        open_table(path) as table,
        RejectedRows(options.rejected_dir / f"{path.name}.rejected.jsonl", report) as rejected,
    ):
        source = _Source(path, table, _own_names(path, table, options.columns))
        if kind == "events":
            groups = _events(source, options, known_items(log), rejected)
        else:
            groups = grouped(_documents(source, _READINGS[kind], options.currency, rejected))
        store(None if options.dry_run else log, groups, options.now_ms, report)
    if not report.rows:
        raise ImportFault(f"{path} has a header and no rows.", "Check how it was exported.")
    return report


@dataclass(frozen=True)
class _Source:
    """A table and, by our name, the name a column has in it."""

    path: Path
    table: Table
    own: Mapping[str, str]

    def need(self, names: Sequence[str]) -> None:
        missing = [name for name in names if name not in self.own]
        if missing:
            raise ImportFault(
                f"{self.path} has no column {missing[0]}; it has {', '.join(self.table.columns) or 'none'}.",
                f"Say which column it is: `--map OWN={missing[0]}`.",
            )

    def batches(self, names: Sequence[str]) -> Iterator[Batch]:
        """Yield the batches with our names, null where a column is missing; rows with an object in one are refused."""
        for batch in self.table.batches:
            frame = batch.frame
            columns = [
                pl.col(self.own[name]).alias(name)
                if self.own.get(name) in frame.columns
                else pl.lit(None, pl.String).alias(name)
                for name in names
            ]
            yield _without_objects(Batch(frame.select(*columns, ROW), batch.rejections))


def _without_objects(batch: Batch) -> Batch:
    names = [name for name in batch.frame.columns if name != ROW]
    faulty = pl.any_horizontal(pl.col(names).str.contains(OBJECT, literal=True).fill_null(value=False))
    refused = []
    for row in batch.frame.filter(faulty).iter_rows(named=True):
        name = next(name for name in names if OBJECT in (row[name] or ""))
        refused.append(
            Rejection(row[ROW], name, "is a JSON object; give text or a number", row[name].replace("\x1e", ""))
        )
    return Batch(batch.frame.filter(~faulty), [*batch.rejections, *refused]) if refused else batch


def _check_targets(columns: Mapping[str, str], kind: Kind) -> None:
    """Raise ImportFault where `--map` names a column that this kind of row lacks, or names one twice."""
    known = (*REQUIRED, *OPTIONAL) if kind == "events" else _READINGS[kind].names
    for own, ours in columns.items():
        if not (ours in known if kind == "events" else _READINGS[kind].takes(ours)):
            raise ImportFault(
                f"`--map {own}={ours}`: {kind} have no column {ours}; they have {', '.join(known)}.",
                "Mend the name after `=`.",
            )
        same = [name for name, target in columns.items() if target == ours]
        if len(same) > 1:
            raise ImportFault(f"`--map` makes {' and '.join(same)} the one column {ours}.", "Map one of them.")


def _own_names(path: Path, table: Table, columns: Mapping[str, str]) -> dict[str, str]:
    unknown = [own for own in columns if own not in table.columns]
    if unknown:
        raise ImportFault(
            f"{path} has no column {unknown[0]}; it has {', '.join(table.columns)}.", "Mend the name in `--map`."
        )
    own = {columns.get(name, name): name for name in table.columns if name not in columns.values()}
    return own | {ours: name for name, ours in columns.items()}


def _events(
    source: _Source, options: Options, items: set[str], rejected: RejectedRows
) -> Iterator[Sequence[NewRecord]]:
    """Yield the records of the events, group by group."""
    source.need([name for name in REQUIRED if name != "event_type" or not options.event_type])
    _note_ignored(source, lambda name: name in REQUIRED or name in OPTIONAL, rejected.report)
    with tempfile.TemporaryDirectory(prefix="shopkeeper-import-") as folder:
        for lines in _in_order(Path(folder), _checked(source, options, rejected)):
            distinct = lines.filter(pl.col("ordered") | pl.col("event_id").is_first_distinct())
            joined = int(distinct["item_id"].is_in(items).sum())
            rejected.report.duplicates += len(lines) - len(distinct)
            rejected.report.joined += joined
            rejected.report.unjoined += int((distinct["item_id"] != "").sum()) - joined
            yield event_records(distinct, options.currency)


def _checked(source: _Source, options: Options, rejected: RejectedRows) -> Iterator[pl.DataFrame]:
    """Yield typed lines, batch by batch; refused rows go to their file."""
    report = rejected.report
    times: TimeReading | None = None
    for batch in source.batches([*REQUIRED, *OPTIONAL]):
        frame = batch.frame
        if options.event_type:
            frame = frame.with_columns(pl.col("event_type").fill_null(options.event_type))
        if times is None and len(frame):
            times = TimeReading.of(frame["timestamp"].drop_nulls())
            report.notes.append(f"timestamp: {times.note}")
        lines, refused = check_events(frame, times or TimeReading(1.0, ""), options.now_ms)
        _count(batch, refused, rejected)
        if len(lines):
            report.cover(lines["time_ms"])
            yield lines


def _count(batch: Batch, refused: Sequence[Rejection], rejected: RejectedRows) -> None:
    rejected.report.rows += len(batch.frame) + len(batch.rejections)
    for rejection in sorted([*batch.rejections, *refused], key=lambda rejection: rejection.row):
        rejected.add(rejection)


def _note_ignored(source: _Source, taken: Callable[[str], bool], report: ImportReport) -> None:
    ignored = [own for ours, own in source.own.items() if not taken(ours)]
    if ignored:
        report.notes.append(f"columns not read: {', '.join(ignored)}")


def _in_order(folder: Path, parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Yield all lines in order of time, the lines of an event together; they wait on disk meanwhile."""
    ordered = False
    count = 0
    for count, lines in enumerate(parts, 1):
        lines.write_parquet(folder / f"part-{count:06}.parquet")
        ordered = ordered or bool(lines["ordered"].any())
    if not count:
        return
    spool = pl.scan_parquet(folder / "part-*.parquet")
    if ordered:
        number = pl.int_range(pl.len()).over("event_id", order_by=ROW) // _LINES_AN_EVENT
        parted = pl.when(number > 0).then(pl.format("{}-{}", "event_id", number)).otherwise("event_id")
        spool = spool.with_columns(pl.col("time_ms").min().over("event_id"), parted.alias("event_id"))
    spool.sort("time_ms", "event_id", ROW).sink_parquet(folder / "ordered.parquet")
    kept = pl.DataFrame()
    for chunk in pq.ParquetFile(folder / "ordered.parquet").iter_batches(GROUP):
        lines = pl.concat([kept, pl.DataFrame(chunk)]) if len(kept) else pl.DataFrame(chunk)
        open_event = pl.col("event_id") == lines["event_id"][-1]
        kept = lines.filter(open_event)
        if len(kept) < len(lines):
            yield lines.filter(~open_event)
    yield kept


def _documents(
    source: _Source, reading: documents.Reading, currency: str, rejected: RejectedRows
) -> Iterator[NewRecord]:
    """Yield the records of items or profiles; the time of the file is the time its rows were true."""
    source.need(reading.required)
    _note_ignored(source, reading.takes, rejected.report)
    set_time_ms = source.path.stat().st_mtime_ns // 1_000_000
    for batch in source.batches([name for name in source.own if reading.takes(name)]):
        refused: list[Rejection] = []
        records: list[NewRecord] = []
        for row in batch.frame.iter_rows(named=True):
            number = row.pop(ROW)
            try:
                values = {name: value for name, value in row.items() if value}
                records.append(reading.record(values, currency, set_time_ms))
            except documents.FieldFault as fault:
                refused.append(Rejection(number, fault.field, fault.reason, str(row.get(fault.field) or "")))
        _count(batch, refused, rejected)
        yield from records
