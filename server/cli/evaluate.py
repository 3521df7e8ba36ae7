"""`shopkeeper evaluate`: quality on the end of the log, or of every model on anyone's data."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from server.cli.deployment import ConfigOption, DataDirOption, run_trainers, settings_of
from server.cli.models import ExportOption, SeedOption, fresh_export, quality_table, seeds_of
from server.cli.output import EXIT_CODES, JsonFlag, handled, result

FileArgument = Annotated[Path, typer.Argument(help="Lines of ids, or a table of events; plain or gzipped.")]
TestArgument = Annotated[Path, typer.Argument(help="What is asked after training, in the same format.")]
ModelsOption = Annotated[str, typer.Option(help="Names of models, with commas between; all without it.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, with commas between.")]
AttributesOption = Annotated[
    Path | None, typer.Option(help="What is known of items: JSON {item: [attribute, ...]}, or CSV with item_id.")
]
TuningOption = Annotated[bool, typer.Option("--tuning/--no-tuning", help="Search hyper-parameters on validation.")]
PlotOption = Annotated[Path | None, typer.Option(help="PNG file to draw accuracy against coverage into.")]
CurvesOption = Annotated[
    Path | None, typer.Option("--plot", help="PNG file to draw the recall at 1 to 50 of every model into.")
]
MlflowOption = Annotated[str, typer.Option(help="Tracking URI of MLflow to log the rows to.")]

_SHOWN = {
    "loo": ("R@10", "N@10", "M@10", "R@20", "N@20"),
    "sessions": ("R@10", "M@10", "R@20", "M@20", "N@20"),
    "sets": ("R@10", "N@10", "R@20", "N@20", "F1@20"),
    "baskets": ("R@10", "N@10", "M@10", "R@20", "N@20"),
}
_BEYOND = ("coverage@20", "novelty@20", "popularity_bias@20")

evaluations = typer.Typer(invoke_without_command=True)


@evaluations.callback(epilog=EXIT_CODES)
@handled
def evaluate(
    context: typer.Context,
    export: ExportOption = None,
    seed: SeedOption = None,
    drawn: CurvesOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure every model and baseline on the end of the log; with a protocol, on files of your own."""
    if context.invoked_subcommand is not None:
        return
    folder = export or fresh_export(settings_of(config, data_dir))
    plot = [] if drawn is None else ["--plot", str(drawn)]
    measured = run_trainers(["evaluate", "--export", str(folder), *seeds_of(seed), *plot, "--json"])
    result(measured, quality_table(measured.get("rows", ())), as_json=json)


def _protocol(
    name: str,
    files: Sequence[Path],
    *,
    models: ModelsOption = "",
    seeds: SeedsOption = "0",
    attributes: AttributesOption = None,
    tuning: TuningOption = True,
    plot: PlotOption = None,
    mlflow: MlflowOption = "",
    json: JsonFlag = False,
) -> None:
    """Have the trainers evaluate a protocol on `files`; the rest are options of all protocols."""
    wanted = {"models": models, "seeds": seeds, "attributes": attributes, "plot": plot, "mlflow": mlflow}
    given = [text for option, value in wanted.items() if value for text in (f"--{option}", str(value))]
    options = [*given, "--tuning" if tuning else "--no-tuning", "--json"]
    measured = run_trainers(["evaluate", name, *map(str, files), *options])
    title = f"{name} {measured['data']}; best on validation: {measured['chosen']}"
    result(measured, quality_table([_line(name, row) for row in measured["rows"]], title), as_json=json)


def _add(name: str, says: str, **files: Any) -> None:
    """Add the command of a protocol, which takes `files` by name and type, then the options of all protocols."""

    def command(**given: Any) -> None:
        _protocol(name, [given.pop(file) for file in files], **given)

    own = [Parameter(file, Parameter.KEYWORD_ONLY, annotation=kind) for file, kind in files.items()]
    shared = list(signature(_protocol).parameters.values())[2:]
    cast("Any", command).__signature__ = Signature([*own, *shared])
    evaluations.command(name, help=says, epilog=EXIT_CODES)(handled(command))


_add(
    "loo",
    "Next item of each visitor: the last is the test, the last but one validation; seen items do not rank.",
    file=FileArgument,
)
_add(
    "sessions",
    "Next item of new sessions; the newest tenth of the training sessions is validation.",
    train=FileArgument,
    test=TestArgument,
)
_add(
    "sets",
    "Rest of each visitor's set; a tenth of each training set is validation; seen items do not rank.",
    train=FileArgument,
    test=TestArgument,
)
_add("baskets", "Next basket of each visitor, or the missing item of baskets of nobody.", file=FileArgument)


def _line(protocol: str, row: Mapping[str, Any]) -> dict[str, object]:
    """Return a row as columns for people: what the protocol is read by, and what it costs."""
    facts = {name: row[name] for name in ("model", "seed")}
    measures = {name: row["metrics"][name] for name in (*_SHOWN[protocol], *_BEYOND)}
    return facts | measures | {"fit s": row["fit_seconds"], "peak MiB": round(row["peak_mib"])}
