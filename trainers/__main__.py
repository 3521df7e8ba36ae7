"""`python -m trainers`: train a bundle or a sequence model, measure models beside baselines or a server.

Results go to standard output, progress to standard error. Exit codes: 0 ok · 1 failed · 2 usage · 4 dependency down.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trainers import report
from trainers.console import JsonOption, Tell, answer, errors_told, progress_told
from trainers.dataset import Export, read_export
from trainers.offline.commands import COMMANDS
from trainers.pipeline import Fitted, Pipeline, Schedule, split_of, write
from trainers.protocols import NextBasket
from trainers.sequence.commands import sequence
from trainers.served import measure_served

ExportOption = Annotated[Path, typer.Option("--export", help="Folder of the export to read.")]
SplitOption = Annotated[
    dt.datetime | None,
    typer.Option(
        help="Moment (UTC) to measure from. Default: where held-out events begin, else 28 days before the end."
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Learns from exports of the table view.")
evaluations = typer.Typer(invoke_without_command=True)
app.add_typer(evaluations, name="evaluate")
for command in COMMANDS:
    evaluations.command()(command)
app.command()(sequence)


@app.command()
def train(
    export: ExportOption,
    out: Annotated[Path, typer.Option(help="Folder to write the bundle into.")],
    split: SplitOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Train a bundle and measure it beside rules and baselines."""
    with errors_told(json=json), progress_told() as tell:
        pipeline = _pipeline(export, split, seed, tell)
        fitted = pipeline.run()
        rows = _rows(fitted, pipeline.schedule.split_ms, tell)
        version = write(fitted, pipeline, out)
    _answer({"version": version, "ranked_by": fitted.ranked_by}, rows, f"bundle {version}", json=json)


@evaluations.callback()
def evaluate(
    context: typer.Context,
    export: Annotated[Path | None, typer.Option("--export", help="Folder of the export to read.")] = None,
    split: SplitOption = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure rules and ranker of an export beside the baselines, or every model on anyone's data; write nothing."""
    if context.invoked_subcommand is not None:
        return
    if export is None:
        raise typer.BadParameter("name the folder of an export, or a protocol", param_hint="--export")
    with errors_told(json=json), progress_told() as tell:
        pipeline = _pipeline(export, split, seed, tell)
        rows = _rows(pipeline.run(), pipeline.schedule.split_ms, tell)
    _answer({}, rows, "next basket", json=json)


@app.command()
def served(
    export: ExportOption,
    address: Annotated[str, typer.Option(help="HOST:PORT of a server whose state is as of the split.")],
    split: SplitOption = None,
    json: JsonOption = False,
) -> None:
    """Measure what a running server shows, by the same protocol."""
    with errors_told(json=json), progress_told() as tell:
        found = read_export(export)
        task = NextBasket(_moment(found, split)).task(found.dataset)
        measured = measure_served(address, task, tell)
        rows = [report.row(name, "served", value) for name, value in measured.items()]
    _answer({}, rows, f"served by {address}", json=json)


def _pipeline(folder: Path, split: dt.datetime | None, seed: int, tell: Tell) -> Pipeline:
    tell("read the export", 0.0)
    export = read_export(folder)
    schedule = Schedule.weekly(export.dataset, _moment(export, split))
    return Pipeline(export, schedule, seed=seed, progress=tell)


def _moment(export: Export, split: dt.datetime | None) -> int:
    if split is None:
        return split_of(export)
    return round((split if split.tzinfo else split.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _rows(fitted: Fitted, split_ms: int, tell: Tell) -> list[report.Row]:
    ours = [report.row(name, model, measured) for (name, model), measured in fitted.measured.items()]
    return sorted([*report.baseline_rows(fitted.task, split_ms, tell), *ours], key=lambda row: str(row["set"]))


def _answer(facts: dict[str, str], rows: Sequence[report.Row], title: str, *, json: bool) -> None:
    answer({**facts, "rows": rows}, report.table(rows, title), json=json)


if __name__ == "__main__":
    app()
