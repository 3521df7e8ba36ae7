"""`shopkeeper replay`: records that the tables could not take come back, as they are or mended, or are dismissed."""

import base64
import json as jsonlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TextIO, TypeVar

import typer
from rich.table import Table

from server.cli.deployment import ConfigOption, DataDirOption, existing_log, settings_of
from server.cli.output import CliError, Exit, JsonFlag, handled, note, result
from server.clock import clock_of
from server.tables import reached_store
from server.telemetry import configure_logging
from server.workers.replay import MESSAGES, Fate, Mended, Outcome, Replay
from shopkeeper.v1.record_pb2 import RecordKind

_ANSWER_S = 120.0
_SHOWN_ROWS = 20
_MENDABLE = {name.removeprefix("RECORD_KIND_").lower(): kind for name, kind in RecordKind.items() if kind in MESSAGES}
_LEFT = frozenset({Fate.BAD, Fate.OUTDATED, Fate.REFUSED, Fate.CONFLICT})
_TOLD = _LEFT | {Fate.ABSENT, Fate.DISMISSED}

_Line = TypeVar("_Line")


@handled
def replay(
    file: Annotated[
        str | None, typer.Argument(help="JSON lines that name rows, - for standard input; without it all are retried.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the rows that are not put back, as JSON lines to be mended.")
    ] = None,
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="Dismiss the rows of the file, which can never be mended.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Look at all and count, but change nothing.")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Put rows of `bad_events` back, each once, or dismiss them.

    Without a file every row is tried again as it is, for the cause may be gone: a newer server, a mended table. With
    one, each line has `log_offset` and either `payload`, the encoded message in base64, or `message`, its fields as
    protobuf writes them in JSON; `kind` (event, decision, item, profile, stated, document) where the row has none of
    these. Mended rows become records of the log. With `--dismiss` a line needs no more than its `log_offset`: the row
    stays in `bad_events` with the time, is not tried again, and may still be mended. Status 1 tells that some row was
    not put back, or not found.
    """
    if dismiss and not file:
        raise typer.BadParameter("--dismiss takes the file of the rows; `shopkeeper replay --out FILE` writes all")
    settings = settings_of(config, data_dir)
    configure_logging("error")  # what is still bad is told by the result
    counts: Counter[Fate] = Counter()
    shown: list[Outcome] = []
    with ExitStack() as stack:
        log = stack.enter_context(existing_log(settings))
        work = Replay(stack.enter_context(reached_store(settings, _ANSWER_S)), log, rehearse=dry_run)
        left = stack.enter_context(out.open("w", encoding="utf-8")) if out else None
        if file and dismiss:
            outcomes = work.dismiss(_lines(file, _offset_of), clock_of(settings.clock).now_ms())
        else:
            outcomes = work.put_back(_lines(file, _mended)) if file else work.try_again()
        for outcome in outcomes:
            counts[outcome.fate] += 1
            if outcome.fate in _TOLD:
                shown += [outcome] if len(shown) < _SHOWN_ROWS else []
            if outcome.fate in _LEFT:
                _keep(left, outcome)
    _show(counts, shown, dry_run=dry_run, as_json=json)
    if out and counts.keys() & _LEFT:
        note(f"rows to mend are in {out}; then `shopkeeper replay {out}`")
    if counts.keys() & (_LEFT | {Fate.ABSENT}):
        raise typer.Exit(Exit.FAILED)


def _lines(name: str, read: Callable[[dict[str, Any]], _Line]) -> Iterator[_Line]:
    """Yield what is read of the lines of a file; CliError names the first that names no row."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{name} cannot be read.", why=str(error), then="name a file, or - for standard input") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            if line.strip():
                yield read(_object_of(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise CliError(
                f"Line {number} of {name} names no row.",
                why=str(error),
                then='write lines like {"log_offset": 17, "payload": "CgJlMQ=="}; `shopkeeper replay --help`',
            ) from None


def _object_of(line: str) -> dict[str, Any]:
    found = jsonlib.loads(line)
    if not isinstance(found, dict):
        raise TypeError("it is no JSON object")
    return found


def _offset_of(line: dict[str, Any]) -> int:
    return int(_given(line, "log_offset"))


def _mended(line: dict[str, Any]) -> Mended:
    offset = _offset_of(line)
    payload = line["message"] if "message" in line else base64.b64decode(_given(line, "payload"), validate=True)
    return Mended(offset, payload, _kind_of(str(line.get("kind") or "")))


def _given(line: dict[str, Any], name: str) -> Any:
    if name not in line:
        raise ValueError(f"it has no {name}{', and no message' if name == 'payload' else ''}")
    return line[name]


def _kind_of(name: str) -> int:
    """Return the kind that a line names; 0 keeps that of the row, as does the number that `--out` writes of others."""
    if name in _MENDABLE:
        return _MENDABLE[name]
    if name and not name.lstrip("-").isdigit():
        raise ValueError(f"the kind {name} is none of {', '.join(_MENDABLE)}")
    return 0


def _keep(file: TextIO | None, outcome: Outcome) -> None:
    """Write what was not put back as a line to be mended."""
    if file is None or outcome.row is None:
        return
    record = outcome.row.record
    names: dict[int, str] = {number: name for name, number in _MENDABLE.items()}
    line = {
        "log_offset": record.offset,
        "kind": names.get(record.kind, str(record.kind)),
        "visitor_id": record.key,
        "record_id": record.record_id,
        "reason": outcome.reason,
        "payload": base64.b64encode(record.payload).decode(),
    }
    file.write(jsonlib.dumps(line, ensure_ascii=True) + "\n")


def _show(counts: Counter[Fate], shown: list[Outcome], *, dry_run: bool, as_json: bool) -> None:
    rows = [{"log_offset": one.log_offset, "fate": one.fate.value, "reason": one.reason} for one in shown]
    facts = {"dry_run": dry_run, "counts": {fate.value: counts[fate] for fate in Fate}, "rows": rows}
    table = Table(title="Rehearsal" if dry_run else "Replay", title_justify="left")
    table.add_column("row")
    table.add_column("count", justify="right")
    table.add_column("log_offset", overflow="fold")
    table.add_column("why", overflow="fold")
    for fate in Fate:
        if counts[fate]:
            told = [one for one in shown if one.fate == fate]
            offsets = ", ".join(str(one.log_offset) for one in told)
            more = ", …" if 0 < len(told) < counts[fate] else ""
            why = told[0].reason if told else ""
            table.add_row(fate.value, f"{counts[fate]:,}", offsets + more, why.replace("[", r"\["))
    result(facts, table if counts else "no row of bad_events waits", as_json=as_json)
