"""What commands share about a deployment on this machine: its settings, its log, its trainers."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from server.adapters.sqlite_log import SqliteLog, open_log
from server.cli.output import CliError, Exit
from server.clock import clock_of
from server.defaults import add_placements
from server.settings import Settings, load_settings

ConfigOption = Annotated[Path | None, typer.Option("--config", help="TOML file with settings.")]
DataDirOption = Annotated[
    Path | None, typer.Option("--data-dir", help="Folder of the log, the tables and the bundles.")
]

_LESS_MEMORY: Final = {
    "count": "fewer `--processes` or more `--shards`",
    "train": "fewer parts `--with`, or a smaller `--export`; `shopkeeper count` learns lists shard by shard",
    "served": "a smaller export",
}
"""What needs less memory, by command."""


def settings_of(config: Path | None, data_dir: Path | None, **overrides: object) -> Settings:
    """Return the settings of the deployment; SettingsError where they cannot be used."""
    return load_settings(config, {"data_dir": data_dir, **overrides})


@contextmanager
def writable_log(settings: Settings) -> Iterator[SqliteLog]:
    """Give the log of the deployment, made where it is missing, with the default placements."""
    with closing(open_log(settings)) as log:
        add_placements(log, clock_of(settings.clock).now_ms())
        yield log


@contextmanager
def existing_log(settings: Settings) -> Iterator[SqliteLog]:
    """Give the log of the deployment; CliError where there is none."""
    if not settings.log_path.exists():
        raise CliError(
            f"There is no log at {settings.log_path}.",
            why="nothing was imported and no server has run with this data folder",
            then="`shopkeeper import complete-journey`, or name another folder with `--data-dir`",
            code=Exit.DEPENDENCY,
        )
    with closing(open_log(settings)) as log:
        yield log


def show_trainers(arguments: Sequence[str]) -> None:
    """Let `python -m trainers` speak for itself."""
    subprocess.run([sys.executable, "-m", "trainers", *arguments], check=True)  # noqa: S603


def run_trainers(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object that `python -m trainers` prints; its progress goes to standard error.

    Raises
    ------
    CliError
        When it fails; with its own exit code where that is one of ours.
    """
    command = [sys.executable, "-m", "trainers", *arguments]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    if child.returncode < 0:
        raise _killed(arguments[0], -child.returncode)
    try:
        answer = json.loads(child.stdout.strip() or "{}")
    except ValueError:
        answer = {}
    if child.returncode or not isinstance(answer, dict):
        known = child.returncode in set(Exit)
        why = str(answer.get("error", "")) if isinstance(answer, dict) else ""
        if why and child.returncode == Exit.USAGE:
            raise CliError("The options cannot be used.", why=why, then="mend them; `--help` has all", code=Exit.USAGE)
        raise CliError(
            f"`python -m trainers {arguments[0]}` ended with status {child.returncode}.",
            why=why or "its last lines above say more",
            then="mend what it names; `shopkeeper doctor` checks the installation",
            code=Exit(child.returncode) if known and child.returncode else Exit.FAILED,
        )
    return answer


def _killed(command: str, number: int) -> CliError:
    """Return the error of trainers that a signal ended."""
    name = next((one.name for one in signal.Signals if one == number), str(number))
    what = f"`python -m trainers {command}` was ended by the signal {name}."
    if number not in {signal.SIGKILL, signal.SIGABRT}:
        why = "somebody stopped it, or a library failed"
        return CliError(what, why=why, then="run it again; `shopkeeper doctor` checks the installation")
    return CliError(
        what,
        why="most likely memory ran out; the log of the kernel (`dmesg`) or of the container says so",
        then=f"give it more memory, or {_LESS_MEMORY.get(command, 'a smaller file')}",
    )
