"""`shopkeeper evaluate`: what is served beside other models on the end of the log, or all models on anyone's files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from server.cli.deployment import ConfigOption, DataDirOption, run_trainers, settings_of, show_trainers
from server.cli.models import ExportOption, SeedOption, fresh_export, quality_table, seeds_of
from server.cli.output import EXIT_CODES, JsonFlag, handled, result

CurvesOption = Annotated[
    Path | None, typer.Option("--plot", help="PNG file to draw the recall at 1 to 50 of every model into.")
]
MinBuyersOption = Annotated[int, typer.Option(min=1, help="Ask for items that so many visitors bought before.")]
MinBasketsOption = Annotated[int, typer.Option(min=1, help="Ask about visitors with so many baskets before.")]
MinItemsOption = Annotated[int, typer.Option(min=1, help="Ask for the next basket of so many items.")]
CategoriesOption = Annotated[
    list[str] | None,
    typer.Option("--without-category", help="First level of category paths to leave out; may be repeated."),
]
SubcategoriesOption = Annotated[
    list[str] | None,
    typer.Option("--without-subcategory", help="Second level of category paths to leave out; may be repeated."),
]
_PROTOCOLS = {
    "loo": "Next item of each visitor.",
    "sessions": "Next item of new sessions.",
    "sets": "Rest of each visitor's set.",
    "baskets": "Next basket of each visitor, or the missing item of baskets of nobody.",
}
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

evaluations = typer.Typer(invoke_without_command=True)


@evaluations.callback(epilog=EXIT_CODES)
@handled
def evaluate(
    context: typer.Context,
    export: ExportOption = None,
    seed: SeedOption = None,
    min_buyers: MinBuyersOption = 1,
    min_baskets: MinBasketsOption = 1,
    min_items: MinItemsOption = 1,
    without_category: CategoriesOption = None,
    without_subcategory: SubcategoriesOption = None,
    drawn: CurvesOption = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Measure heuristic and ranker on the end of the log, beside baselines, TIFU-KNN, iALS and EASE.

    With a protocol, measure every model that can answer it on files of your own; `evaluate PROTOCOL --help` has more.
    """
    if context.invoked_subcommand is not None:
        return
    folder = export or fresh_export(settings_of(config, data_dir))
    plot = [] if drawn is None else ["--plot", str(drawn)]
    question = {
        "--min-buyers": [str(min_buyers)],
        "--min-baskets": [str(min_baskets)],
        "--min-items": [str(min_items)],
        "--without-category": without_category or [],
        "--without-subcategory": without_subcategory or [],
    }
    asked = [text for option, values in question.items() for value in values for text in (option, value)]
    options = ["--export", str(folder), *asked, *seeds_of(seed), *plot]
    measured = run_trainers(["evaluate", *options, "--json"])
    result(measured, quality_table(measured.get("rows", ())), as_json=json)


def _protocol(name: str) -> Callable[..., None]:
    """Return the command of a protocol: the trainers know its files and options, and say what there is to show."""

    def command(context: typer.Context, json: JsonFlag = False) -> None:
        if "--help" in context.args:
            show_trainers(["evaluate", name, "--help"])
            return
        measured = run_trainers(["evaluate", name, *context.args, "--json"])
        rows = [_line(row, measured["columns"]) for row in measured["rows"]]
        asked = f"{measured['questions']:,} questions, {measured['left_out']:,} left out"
        title = f"{name} {measured['data']}, {asked}; best on validation: {measured['chosen']}"
        result(measured, quality_table(rows, title), as_json=json)

    return handled(command)


for protocol, says in _PROTOCOLS.items():
    evaluations.command(protocol, help=says, epilog=EXIT_CODES, context_settings=_PASSED_ON)(_protocol(protocol))


def _line(row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, object]:
    """Return a row for people: what the protocol is read by, and what the model costs."""
    facts = {name: row[name] for name in ("model", "seed")}
    measures = {name: row["metrics"].get(name) for name in columns}
    return facts | measures | {"fit s": row["fit_seconds"], "peak MiB": round(row["peak_mib"])}
