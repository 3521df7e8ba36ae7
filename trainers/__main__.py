"""`python -m trainers`: train a bundle or a sequence model, measure models beside baselines or a server.

Results go to standard output, progress to standard error. Exit codes: 0 ok · 1 failed · 2 usage · 4 dependency down.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from trainers import chosen, report
from trainers.ablation import variants
from trainers.base import OptionError, Tell
from trainers.baselines import Baselines
from trainers.bundle import learnt_until
from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.dataset import Export, read_export
from trainers.gate import judge, undecided, unseen_half
from trainers.item_vectors import TITLES, with_vectors
from trainers.offline.commands import COMMANDS
from trainers.parts import CONTENT, left_out, parts_of
from trainers.pipeline import Fitted, Pipeline, write
from trainers.plot import draw_recall
from trainers.protocols import NextBasketQuestion, Task
from trainers.question_options import asks
from trainers.rankers import RankerKind
from trainers.schedule import Schedule, split_of
from trainers.sequence.commands import sequence
from trainers.served import measure_served
from trainers.shards.commands import count

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
RankerOption = Annotated[RankerKind, typer.Option(help="What the ranker is made of.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Learns from exports of the table view.")
evaluations = typer.Typer(invoke_without_command=True)
app.add_typer(evaluations, name="evaluate")
for command in COMMANDS:
    evaluations.command()(command)
app.command()(sequence)
app.command()(count)


@app.command()
@asks
def train(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    export: ExportOption,
    out: Annotated[Path, typer.Option(help="Folder to write the bundle into.")],
    split: SplitOption = None,
    seed: SeedOption = None,
    ranker: RankerOption = chosen.RANKER,
    baselines: Annotated[
        Baselines,
        typer.Option(help="What to measure beside: what costs next to nothing, or iALS, EASE and others too."),
    ] = Baselines.TRIVIAL,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Bundle that serves: say whether the new one is not worse on what it never saw; train none where too "
            "few visitors tell."
        ),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of its NDCG@10 that may be lost.")] = 0.02,
    parts: Annotated[str, typer.Option("--with", help="Parts to add, comma-separated: content, sequence.")] = "",
    item_vectors: Annotated[
        str, typer.Option(help="What the part content reads too: a Parquet file of item_id and vector, or `titles`.")
    ] = "",
    *,
    question: NextBasketQuestion,
    json: JsonOption = False,
) -> None:
    """Train a bundle and measure it beside the heuristic and baselines."""
    with errors_told(json=json), progress_told() as tell:
        names = parts_of(parts)
        if item_vectors and CONTENT not in names:
            raise OptionError(f"--item-vectors are read by the part {CONTENT}; add `--with {CONTENT}`")
        read, moment = _opened(export, split, tell)
        if against is not None:
            moment = max(moment, unseen_half(read, learnt_until(against)))
            if why := undecided(read.dataset, moment):
                answer({"gate": {"passed": False, "why": why}}, f"no bundle was made: {why}", json=json)
                return
        named = {"ranker": ranker, "question": question, "parts": names}
        pipeline = _pipeline(read, moment, seed, tell, item_vectors=item_vectors, **named)
        fitted = pipeline.run()
        for name in left_out(names, fitted.models):
            tell(f"{name} left out: there is nothing to learn it from yet", 1.0)
        rows = report.lines_of(_measured(fitted, pipeline, tell, baselines))
        found: dict[str, object] = {"ranked_by": fitted.ranked_by, "asked": len(fitted.task.visitor)}
        if against is not None:
            found["gate"] = asdict(judge(pipeline, fitted, against, tolerance))
        version = write(fitted, pipeline, out)
    _answer({"version": version, **found}, rows, f"bundle {version}", json=json)


@evaluations.callback()
@asks
def evaluate(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    context: typer.Context,
    export: Annotated[Path | None, typer.Option("--export", help="Folder of the export to read.")] = None,
    split: SplitOption = None,
    seed: SeedOption = None,
    ranker: RankerOption = chosen.RANKER,
    plot: Annotated[
        Path | None, typer.Option(help="PNG file to draw the recall at 1 to 50 of every model into.")
    ] = None,
    *,
    question: NextBasketQuestion,
    json: JsonOption = False,
) -> None:
    """Measure heuristic and ranker of an export beside baselines, or every model on anyone's data; write no bundle."""
    if context.invoked_subcommand is not None:
        return
    if export is None:
        raise typer.BadParameter("name the folder of an export, or a protocol", param_hint="--export")
    with errors_told(json=json), progress_told() as tell:
        read, moment = _opened(export, split, tell)
        _need_somebody(question, read, moment)
        pipeline = _pipeline(read, moment, seed, tell, ranker=ranker, question=question)
        fitted = pipeline.run()
        found = _measured(fitted, pipeline, tell, Baselines.ALL)
        if plot is not None:
            draw_recall(found, plot)
    _answer({"asked": len(fitted.task.visitor)}, report.lines_of(found), "next basket", json=json)


@app.command()
@asks
def ablate(  # noqa: PLR0913 - an option of a command is a parameter
    export: ExportOption,
    split: SplitOption = None,
    seed: SeedOption = None,
    ranker: RankerOption = chosen.RANKER,
    *,
    question: NextBasketQuestion,
    json: JsonOption = False,
) -> None:
    """Measure what time, promotion, price, place, device and campaign are worth: rankers that must do without them."""
    with errors_told(json=json), progress_told() as tell:
        read, moment = _opened(export, split, tell)
        _need_somebody(question, read, moment)
        pipeline = _pipeline(read, moment, seed, tell, ranker=ranker, question=question)
        found = pipeline.compare(variants())
    said = {"protocol": "next basket", "seeds": ",".join(map(str, pipeline.seeds))}
    _answer(said, report.lines_of(found), "what context is worth", json=json)


@app.command()
@asks
def served(
    export: ExportOption,
    address: Annotated[str, typer.Option(help="HOST:PORT of a server whose state is as of the split.")],
    split: SplitOption = None,
    *,
    question: NextBasketQuestion,
    json: JsonOption = False,
) -> None:
    """Measure what a running server shows, by the same protocol."""
    with errors_told(json=json), progress_told() as tell:
        task = _need_somebody(question, *_opened(export, split, tell))
        measured = measure_served(address, task, tell)
        rows = report.lines_of({(name, "served"): [value] for name, value in measured.items()})
    _answer({}, rows, f"served by {address}", json=json)


def _opened(folder: Path, split: dt.datetime | None, tell: Tell) -> tuple[Export, int]:
    """Return an export and the moment to measure from, Unix milliseconds."""
    tell("read the export", 0.0)
    export = read_export(folder)
    if split is None:
        return export, split_of(export)
    return export, round((split if split.tzinfo else split.replace(tzinfo=dt.UTC)).timestamp() * 1000)


def _pipeline(
    export: Export, moment: int, seeds: list[int] | None, tell: Tell, *, item_vectors: str = "", **wanted: Any
) -> Pipeline:
    if item_vectors:
        source = item_vectors if item_vectors == TITLES else str(Path(item_vectors).resolve())
        export = replace(export, dataset=with_vectors(export.dataset, source), item_vectors=source)
    schedule = Schedule.weekly(export.dataset, moment)
    return Pipeline(export, schedule, seeds=tuple(seeds or (0,)), progress=tell, **wanted)


def _need_somebody(question: NextBasketQuestion, export: Export, moment: int) -> Task:
    """Return what is asked at a moment; ValueError, before anything is learnt, where that is nothing."""
    task = question.task(export.dataset, moment)
    if not len(task.visitor):
        raise ValueError(
            f"{_nobody(moment)}, so there is nobody to ask; give a longer log, or ask about more by lower "
            "`--min-buyers`, `--min-baskets` and `--min-items` and fewer categories left out"
        )
    return task


def _nobody(moment: int) -> str:
    when = dt.datetime.fromtimestamp(moment / 1000, dt.UTC)
    return f"nobody bought what is asked about both before and after {when:%Y-%m-%d %H:%M} UTC"


def _measured(fitted: Fitted, pipeline: Pipeline, tell: Tell, kind: Baselines) -> report.Found:
    if not len(fitted.task.visitor):
        kind = Baselines.TRIVIAL  # others may have no row to learn from
        tell(f"{_nobody(pipeline.schedule.split_ms)}: the measures below say nothing", 1.0)
    return {**report.baselines(fitted.task, pipeline.schedule.split_ms, tell, kind), **fitted.measured}


def _answer(said: Mapping[str, object], rows: Sequence[report.Row], title: str, *, json: bool) -> None:
    answer({**said, "rows": rows}, report.table(rows, title), json=json)


if __name__ == "__main__":
    app()
