"""`python -m trainers evaluate loo | sessions | sets | baskets`: every model on anyone's data."""

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, cast

import polars as pl
import typer

from trainers.base import OptionError
from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.offline import protocols, report
from trainers.offline.questions import Split
from trainers.offline.readers import read_attributes
from trainers.offline.recipes import SEQUENCE_MODELS, picked, recipes_of
from trainers.offline.runner import run
from trainers.sequence.model import HOW_TO_INSTALL, MissingTorchError, has_torch

_MOST_SEED = 2**32 - 1
FileArgument = Annotated[Path, typer.Argument(help="Lines of ids, or a table of events; plain or gzipped.")]
TestArgument = Annotated[Path, typer.Argument(help="What is asked after training: as the file before.")]
QuestionsArgument = Annotated[
    Path,
    typer.Argument(help="What is asked after training: lines of items, a tab and the next item, or a table of events."),
]
ModelsOption = Annotated[str, typer.Option(help="Names of models, with commas between; all without it.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, with commas between.")]
AttributesOption = Annotated[
    Path | None,
    typer.Option(help="What is known of items: a JSON object with a list for each item, or CSV with item_id."),
]
TuningOption = Annotated[bool, typer.Option("--tuning/--no-tuning", help="Search hyper-parameters on validation.")]
PlotOption = Annotated[Path | None, typer.Option(help="PNG file to draw accuracy against coverage into.")]
MlflowOption = Annotated[str, typer.Option(help="Tracking URI of an MLflow server or folder to log the rows to.")]


def _evaluate(  # noqa: PLR0913 - an option of a command is a parameter
    read: Callable[[pl.DataFrame | None], Split],
    *,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonOption = False,
) -> None:
    """Evaluate every model on what `read` makes of the attributes of items; the rest are options of all protocols."""
    with errors_told(json=json), progress_told() as tell:
        report.check_options(plot, mlflow)
        numbers = _numbers(seeds)
        tell("read the data", 0.0)
        known = None if attributes is None else read_attributes(attributes)
        split = read(known)
        if known is not None:
            tell(_told_of(known, split), 1.0)
        recipes = recipes_of(split.protocol, with_content=known is not None, of_visitors=split.of_visitors)
        names = [name.strip() for name in models.split(",") if name.strip()]
        chosen = picked(recipes, names)
        if not has_torch() and not chosen.keys().isdisjoint(SEQUENCE_MODELS):
            if set(names) & set(SEQUENCE_MODELS):
                raise MissingTorchError(f"{' and '.join(SEQUENCE_MODELS)}: each {HOW_TO_INSTALL}")
            tell(f"{' and '.join(SEQUENCE_MODELS)} left out: each {HOW_TO_INSTALL}", 1.0)
            chosen = {name: recipe for name, recipe in chosen.items() if name not in SEQUENCE_MODELS}
        evaluation = run(split, chosen, numbers, tell, tuned=tuning)
        if plot is not None:
            report.plot(evaluation, plot)
        if mlflow:
            report.track(evaluation, mlflow)
    answer(report.as_json(evaluation), report.table(evaluation), json=json)


def _command(name: str, says: str, read: Callable[..., Split], **files: Any) -> Callable[..., None]:
    """Return the command of a protocol, which takes `files` by name and type, then the options of all protocols."""

    def command(**given: Any) -> None:
        paths = [given.pop(file) for file in files]
        _evaluate(lambda items: read(*paths, items), **given)

    own = [Parameter(file, Parameter.KEYWORD_ONLY, annotation=kind) for file, kind in files.items()]
    shared = list(signature(_evaluate).parameters.values())[1:]
    command.__name__, command.__doc__ = name, says
    cast("Any", command).__signature__ = Signature([*own, *shared])
    return command


COMMANDS = (
    _command(
        "loo",
        "Next item of each visitor: the last is the test, the last but one validation; seen items do not rank.",
        protocols.leave_one_out,
        file=FileArgument,
    ),
    _command(
        "sessions",
        "Next item of new sessions; the newest tenth of the training sessions is validation.",
        protocols.sessions,
        train=FileArgument,
        test=QuestionsArgument,
    ),
    _command(
        "sets",
        "Rest of each visitor's set; a tenth of each training set is validation; seen items do not rank.",
        protocols.sets,
        train=FileArgument,
        test=TestArgument,
    ),
    _command(
        "baskets",
        "Next basket of each visitor, or the missing item of baskets of nobody.",
        protocols.baskets,
        file=FileArgument,
    ),
)
"""Commands of the protocols."""


def _numbers(seeds: str) -> list[int]:
    numbers = [int(seed) for seed in seeds.split(",") if seed.strip().isdecimal()]
    if len(numbers) <= seeds.count(",") or max(numbers) > _MOST_SEED or len(set(numbers)) < len(numbers):
        raise OptionError(f"--seeds {seeds}: write different whole numbers from 0 on, with commas between, e.g. 0,1")
    return numbers


def _told_of(attributes: pl.DataFrame, split: Split) -> str:
    """Return of how many items something is known; OptionError if of none."""
    items = split.train.items
    count = len(set(attributes["item_id"]) & set(items))
    if not count:
        raise OptionError(f"--attributes tell of none of the {len(items):,} items; write the ids as the histories do")
    return f"attributes of {count:,} of {len(items):,} items"
