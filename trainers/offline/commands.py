"""`python -m trainers evaluate loo | sessions | sets | baskets`: every model on anyone's data."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import polars as pl
import typer

from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.offline import protocols, report
from trainers.offline.questions import Split
from trainers.offline.readers import read_attributes
from trainers.offline.recipes import SEQUENCE_MODELS, picked, recipes_of
from trainers.offline.runner import run
from trainers.sequence.model import HOW_TO_INSTALL, has_torch

FileArgument = Annotated[Path, typer.Argument(help="Lines of ids, or a table of events; plain or gzipped.")]
TestArgument = Annotated[Path, typer.Argument(help="What is asked after training.")]
ModelsOption = Annotated[str, typer.Option(help="Names of models, with commas between; all without it.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, with commas between.")]
AttributesOption = Annotated[
    Path | None, typer.Option(help="What is known of items: JSON {item: [attribute, ...]}, or CSV with item_id.")
]
TuningOption = Annotated[bool, typer.Option("--tuning/--no-tuning", help="Search hyper-parameters on validation.")]
PlotOption = Annotated[Path | None, typer.Option(help="PNG file to draw accuracy against coverage into.")]
MlflowOption = Annotated[str, typer.Option(help="Tracking URI of an MLflow server or folder to log the rows to.")]


class Options(NamedTuple):
    """What all protocols can be asked for, as typed."""

    models: str
    seeds: str
    attributes: Path | None
    tuning: bool
    plot: Path | None
    mlflow: str


def loo(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    file: FileArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next item of each visitor: the last is the test, the last but one validation; seen items do not rank."""
    _evaluate(
        lambda items: protocols.leave_one_out(file, items),
        Options(models, seeds, attributes, tuning, plot, mlflow),
        json=json,
    )


def sessions(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    train: FileArgument,
    test: TestArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next item of new sessions; the newest tenth of the training sessions is validation."""
    _evaluate(
        lambda items: protocols.sessions(train, test, items),
        Options(models, seeds, attributes, tuning, plot, mlflow),
        json=json,
    )


def sets(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    train: FileArgument,
    test: TestArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Rest of each visitor's set; a tenth of each training set is validation; seen items do not rank."""
    _evaluate(
        lambda items: protocols.sets(train, test, items),
        Options(models, seeds, attributes, tuning, plot, mlflow),
        json=json,
    )


def baskets(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    file: FileArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next basket of each visitor, or the missing item of baskets of nobody."""
    _evaluate(
        lambda items: protocols.baskets(file, items),
        Options(models, seeds, attributes, tuning, plot, mlflow),
        json=json,
    )


COMMANDS = (loo, sessions, sets, baskets)
"""Commands of the protocols."""


def _evaluate(read: Callable[[pl.DataFrame | None], Split], options: Options, *, json: bool) -> None:
    with errors_told(json=json), progress_told() as tell:
        report.check_options(options.plot, options.mlflow)
        seeds = _numbers(options.seeds)
        tell("read the data", 0.0)
        split = read(None if options.attributes is None else read_attributes(options.attributes))
        recipes = recipes_of(split.protocol, with_content=options.attributes is not None)
        if not options.models and not has_torch():
            tell(f"{' and '.join(SEQUENCE_MODELS)} left out: each {HOW_TO_INSTALL}", 1.0)
            recipes = {name: recipe for name, recipe in recipes.items() if name not in SEQUENCE_MODELS}
        names = [name.strip() for name in options.models.split(",") if name.strip()]
        outcome = run(split, picked(recipes, names), seeds, tell, tuned=options.tuning)
        if options.plot is not None:
            report.plot(outcome, options.plot)
        if options.mlflow:
            report.track(outcome, options.mlflow)
    answer(report.as_json(outcome), report.table(outcome), json=json)


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"`{seeds}` is no list of seeds; write whole numbers with commas between, e.g. 0,1") from None
