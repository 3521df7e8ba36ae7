"""`python -m trainers`: train a bundle, measure models beside baselines, measure what a server shows.

Results go to standard output, progress to standard error. Exit codes: 0 ok · 1 failed · 2 usage · 4 dependency down.
"""

import datetime as dt
import json as jsonlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from trainers import report
from trainers.ablation import variants
from trainers.dataset import Export, read_export
from trainers.pipeline import Fitted, Pipeline, Schedule, split_of, write
from trainers.plot import draw_recall
from trainers.protocols import NextBasket
from trainers.served import measure_served

ExportOption = Annotated[Path, typer.Option("--export", help="Folder of the export to read.")]
SplitOption = Annotated[
    dt.datetime | None,
    typer.Option(
        help="Moment (UTC) to measure from. Default: where held-out events begin, else 28 days before the end."
    ),
]
SeedOption = Annotated[
    list[int] | None,
    typer.Option(min=0, help="Seed of everything random, 0 where none is named; several give a ranker each."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
Tell = Callable[[str, float], None]

_FAILED, _DEPENDENCY = 1, 4
_WIDTH = 140

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Learns from exports of the table view.")


@app.command()
def train(
    export: ExportOption,
    out: Annotated[Path, typer.Option(help="Folder to write the bundle into.")],
    split: SplitOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
) -> None:
    """Train a bundle and measure it beside rules and baselines."""
    with _errors_told(json=json), _progress() as tell:
        pipeline = _pipeline(export, split, seed, tell)
        fitted = pipeline.run()
        rows = report.rows_of(_measured(fitted, pipeline, tell))
        version = write(fitted, pipeline, out)
    _answer({"version": version, "ranked_by": fitted.ranked_by}, rows, f"bundle {version}", json=json)


@app.command()
def evaluate(
    export: ExportOption,
    split: SplitOption = None,
    seed: SeedOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to draw the recall at 1 to 50 of every model into.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure rules and ranker beside the baselines; write no bundle."""
    with _errors_told(json=json), _progress() as tell:
        pipeline = _pipeline(export, split, seed, tell)
        found = _measured(pipeline.run(), pipeline, tell)
        if plot is not None:
            draw_recall(found, plot)
    _answer({}, report.rows_of(found), "next basket", json=json)


@app.command()
def ablate(
    export: ExportOption,
    split: SplitOption = None,
    seed: SeedOption = None,
    json: JsonOption = False,
) -> None:
    """Measure what time, promotion, price, device and place are worth: rankers that must do without them."""
    with _errors_told(json=json), _progress() as tell:
        pipeline = _pipeline(export, split, seed, tell)
        found = pipeline.compare(variants())
    facts = {"protocol": "next basket", "seeds": ",".join(map(str, pipeline.seeds))}
    _answer(facts, report.rows_of(found), "what context is worth", json=json)


@app.command()
def served(
    export: ExportOption,
    address: Annotated[str, typer.Option(help="HOST:PORT of a server whose state is as of the split.")],
    split: SplitOption = None,
    json: JsonOption = False,
) -> None:
    """Measure what a running server shows, by the same protocol."""
    with _errors_told(json=json), _progress() as tell:
        found = read_export(export)
        task = NextBasket(_moment(found, split)).task(found.dataset)
        measured = measure_served(address, task, tell)
        rows = report.rows_of({(name, "served"): [value] for name, value in measured.items()})
    _answer({}, rows, f"served by {address}", json=json)


def _pipeline(folder: Path, split: dt.datetime | None, seeds: list[int] | None, tell: Tell) -> Pipeline:
    tell("read the export", 0.0)
    export = read_export(folder)
    schedule = Schedule.weekly(export.dataset, _moment(export, split))
    return Pipeline(export, schedule, seeds=tuple(seeds or (0,)), progress=tell)


def _moment(export: Export, split: dt.datetime | None) -> int:
    if split is None:
        return split_of(export)
    return round((split if split.tzinfo else split.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _measured(fitted: Fitted, pipeline: Pipeline, tell: Tell) -> report.Found:
    return {**report.baselines(fitted.task, pipeline.schedule.split_ms, tell), **fitted.measured}


def _answer(facts: dict[str, str], rows: Sequence[report.Row], title: str, *, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps({**facts, "rows": rows}) + "\n")
    else:
        width = None if sys.stdout.isatty() else _WIDTH
        Console(width=width).print(report.table(rows, title))


@contextmanager
def _errors_told(*, json: bool) -> Iterator[None]:
    """End with a line that says what to mend, instead of a trace, where the fault is not ours."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        _fail(str(error), _FAILED, json=json)
    except grpc.RpcError as error:
        text = error.details() if isinstance(error, grpc.Call) else str(error)
        _fail(f"the server did not answer: {text}; look at its address and log", _DEPENDENCY, json=json)


def _fail(text: str, code: int, *, json: bool) -> None:
    Console(stderr=True).print(text, style="red", highlight=False, markup=False, soft_wrap=True)
    if json:
        sys.stdout.write(jsonlib.dumps({"error": text}) + "\n")
    raise typer.Exit(code)


@contextmanager
def _progress() -> Iterator[Tell]:
    """Give a function that shows what is being done and how far it is, on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}

        def tell(what: str, share: float) -> None:
            for name, bar in bars.items():
                if name != what:
                    progress.update(bar, completed=1.0)
            if what not in bars:
                bars[what] = progress.add_task(what, total=1.0)
            progress.update(bars[what], completed=share)

        yield tell
        for bar in bars.values():
            progress.update(bar, completed=1.0)


if __name__ == "__main__":
    app()
