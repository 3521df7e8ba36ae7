"""`python -m trainers evaluate loo | sessions | sets | baskets`: every model on anyone's data."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.offline import protocols, report
from trainers.offline.questions import Trial
from trainers.offline.recipes import picked, recipes_of
from trainers.offline.runner import run

FileArgument = Annotated[Path, typer.Argument(help="Lines of ids, or a table of events; plain or gzipped.")]
TestArgument = Annotated[Path, typer.Argument(help="What is asked after training.")]
ModelsOption = Annotated[str, typer.Option(help="Names of models, with commas between; all without it.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, with commas between.")]
TunedOption = Annotated[bool, typer.Option("--tuning/--no-tuning", help="Search hyper-parameters on validation.")]
PlotOption = Annotated[Path | None, typer.Option(help="PNG file to draw accuracy against coverage into.")]
MlflowOption = Annotated[str, typer.Option(help="Tracking URI of an MLflow server or folder to log the rows to.")]


def loo(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    file: FileArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    tuning: TunedOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next item of each visitor: the last is the test, the last but one validation; seen items do not rank."""
    _evaluate(lambda: protocols.leave_one_out(file), models, seeds, (tuning, plot, mlflow), json=json)


def sessions(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    train: FileArgument,
    test: TestArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    tuning: TunedOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next item of new sessions; the newest tenth of the training sessions is validation."""
    _evaluate(lambda: protocols.sessions(train, test), models, seeds, (tuning, plot, mlflow), json=json)


def sets(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    train: FileArgument,
    test: TestArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    tuning: TunedOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Rest of each visitor's set; a tenth of each training set is validation; seen items do not rank."""
    _evaluate(lambda: protocols.sets(train, test), models, seeds, (tuning, plot, mlflow), json=json)


def baskets(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    file: FileArgument,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    tuning: TunedOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Next basket of each visitor, or the missing item of baskets of nobody."""
    _evaluate(lambda: protocols.baskets(file), models, seeds, (tuning, plot, mlflow), json=json)


COMMANDS = (loo, sessions, sets, baskets)
"""Commands of the protocols."""


def _evaluate(
    read: Callable[[], Trial], models: str, seeds: str, options: tuple[bool, Path | None, str], *, json: bool
) -> None:
    tuning, plot, mlflow = options
    with errors_told(json=json), progress_told() as tell:
        report.check_options(plot, mlflow)
        numbers = _numbers(seeds)
        tell("read the data", 0.0)
        trial = read()
        recipes = picked(recipes_of(trial.protocol), [name.strip() for name in models.split(",") if name.strip()])
        outcome = run(trial, recipes, numbers, tell, tuned=tuning)
        if plot is not None:
            report.plot(outcome, plot)
        if mlflow:
            report.track(outcome, mlflow)
    answer(report.as_json(outcome), report.table(outcome), json=json)


def _numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise ValueError(f"`{seeds}` is no list of seeds; write whole numbers with commas between, e.g. 0,1") from None
