"""`shopkeeper`: every command, its help and its exit codes."""

import sys

import typer

from server.cli import ask, data, demo, evaluate, models, running
from server.cli.output import EXIT_CODES, usage_error
from server.cli.replay import replay
from server.cli.restore import restore
from server.cli.retrain import retrain
from server.cli.trial import trial

app = typer.Typer(
    name="shopkeeper",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Personalization engine of a shop: events in, decisions out. Start with `shopkeeper demo`.",
    epilog=EXIT_CODES,
)

_PANELS = {
    "Start": (demo.demo, running.serve),
    "Models": (models.train, models.count, models.publish, models.activate, models.rollback, retrain),
    "Ask a running server": (ask.recommend, ask.explain, ask.placements),
    "Look after it": (running.migrate, running.doctor, running.version),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(epilog=EXIT_CODES, rich_help_panel=panel)(command)
app.add_typer(trial, name="trial", epilog=EXIT_CODES, rich_help_panel="Models")
app.add_typer(evaluate.evaluations, name="evaluate", epilog=EXIT_CODES, rich_help_panel="Models")
app.add_typer(data.imports, name="import", epilog=EXIT_CODES, rich_help_panel="Data")
app.add_typer(data.events, name="events", epilog=EXIT_CODES, rich_help_panel="Data")
app.command(epilog=EXIT_CODES, rich_help_panel="Data")(data.export)
app.command(epilog=EXIT_CODES, rich_help_panel="Data")(replay)
app.command(epilog=EXIT_CODES, rich_help_panel="Data")(restore)
app.command(
    epilog=EXIT_CODES,
    rich_help_panel="Look after it",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(running.bench)


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    if "--json" not in sys.argv:
        app()
    try:
        status = app(standalone_mode=False)
    except typer.TyperException as fault:
        status = usage_error(fault)
    sys.exit(status)
