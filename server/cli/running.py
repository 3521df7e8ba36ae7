"""Commands about the installation: `serve`, `migrate`, `doctor`, `bench`, `version`."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

import server
from server.cli import doctor as checks
from server.cli.deployment import ConfigOption, DataDirOption, settings_of
from server.cli.output import CliError, Exit, JsonFlag, handled, note, result
from server.telemetry import configure_logging

_BENCH = Path(server.__file__).parent.parent / "bench" / "run.py"
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@handled
def serve(
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that answer.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C; logs go to standard error."""
    from server.launch import serve as run  # noqa: PLC0415 - the other commands need no server

    settings = settings_of(config, data_dir, **{"listen.port": port, "listen.workers": workers})
    listen = settings.listen
    where = f"{listen.address}:{listen.port}" if listen.port else f"a free port of {listen.address}"
    note(f"starting on {where}, data in {settings.data_dir}; Ctrl-C stops")
    try:
        status = run(settings)
    except OSError as error:
        raise CliError(
            "The server cannot start.", why=str(error), then="`shopkeeper doctor`", code=Exit.DEPENDENCY
        ) from None
    if status:
        raise CliError(
            f"The server ended with status {status}.",
            why="its last log lines above say more",
            then="`shopkeeper doctor`",
            code=Exit.DEPENDENCY,
        )
    result({"status": status}, "stopped", as_json=json)


@handled
def migrate(
    change_topics: Annotated[
        bool,
        typer.Option(
            "--change-topics", help="Make topics that are there keep what is set; may shorten what they keep."
        ),
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Bring the tables up to date, and make or check the topics on Kafka; may be repeated while others serve.

    Topics that are there stay as they are unless asked for, and what differs from the settings is shown.
    """
    from server.cli.migration import migrated  # noqa: PLC0415 - the other commands need none of it

    facts, shown = migrated(settings_of(config, data_dir), change_topics=change_topics)
    result(facts, shown, as_json=json)


@handled
def doctor(
    data: Annotated[
        bool, typer.Option("--data", help="Look at the data instead: counts, faults, and what each recommender needs.")
    ] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Check the installation and the data folder; every row that is not ok says what to do."""
    if data:
        from server.cli.doctor_data import data_report  # noqa: PLC0415 - needs what the checks look for

        settings = settings_of(config, data_dir)
        configure_logging("error")
        report, shown = data_report(settings)
        result(report, shown, as_json=json)
        return
    rows = checks.examine(config, data_dir)
    table = Table("check", "state", "finding", "next", title="doctor", title_justify="left")
    for row in rows:
        style = _STYLES[row.state]
        table.add_row(row.check, f"[{style}]{row.state}[/]", escape(row.finding), escape(row.then))
    result({"ok": all(row.state != "fail" for row in rows), "checks": [vars(row) for row in rows]}, table, as_json=json)
    if status := checks.status_of(rows):
        raise typer.Exit(status)


@handled
def bench(
    context: typer.Context,
    json: JsonFlag = False,
) -> None:
    """Run `bench/run.py` of a source checkout with the same arguments."""
    if not _BENCH.is_file():
        raise CliError(
            "The benchmarks are not here.",
            why=f"{_BENCH} does not exist; an installed package does not carry them",
            then="run `shopkeeper bench` from a source checkout",
        )
    flags = ["--json"] if json else []
    status = subprocess.run([sys.executable, str(_BENCH), *flags, *context.args], check=False).returncode  # noqa: S603
    if status:
        raise typer.Exit(Exit.FAILED)


@handled
def version(json: JsonFlag = False) -> None:
    """Show the version, the engine's feature table and the platform."""
    import core_rs  # noqa: PLC0415 - `doctor` must run without it

    facts = {
        "shopkeeper": importlib.metadata.version("shopkeeper"),
        "python": platform.python_version(),
        "schema_hash": core_rs.schema_hash(),
        "feature_count": len(core_rs.feature_names()),
        "platform": platform.platform(),
    }
    result(facts, "\n".join(f"{name} {value}" for name, value in facts.items()), as_json=json)
