"""`shopkeeper`: every command, its help and its exit codes."""

import typer

from server.cli import ask, data, demo, models, running
from server.cli.output import EXIT_CODES

app = typer.Typer(
    name="shopkeeper",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Personalization engine of a shop: events in, decisions out. Start with `shopkeeper demo`.",
    epilog=EXIT_CODES,
)
app.command(epilog=EXIT_CODES)(demo.demo)
app.command(epilog=EXIT_CODES)(running.serve)
app.add_typer(data.imports, name="import", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(data.export)
app.command(epilog=EXIT_CODES)(models.train)
app.command(epilog=EXIT_CODES)(models.evaluate)
app.command(epilog=EXIT_CODES)(models.publish)
app.command(epilog=EXIT_CODES)(models.activate)
app.command(epilog=EXIT_CODES)(models.rollback)
app.command(epilog=EXIT_CODES)(ask.recommend)
app.command(epilog=EXIT_CODES)(ask.explain)
app.add_typer(data.events, name="events", epilog=EXIT_CODES)
app.command(epilog=EXIT_CODES)(running.doctor)
app.command(
    epilog=EXIT_CODES,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(running.bench)
app.command(epilog=EXIT_CODES)(running.version)


def main() -> None:
    """Run the command line; ends the process with the exit code."""
    app()
