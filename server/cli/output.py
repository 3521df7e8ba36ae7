"""How commands speak: results, notes, and errors that say what, why and which command comes next."""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Annotated, Any, TypeVar, cast

import grpc
import typer
from rich.console import Console, RenderableType

from server.importing.report import ImportFault
from server.ports import (
    LogUnavailableError,
    StoreError,
    StoreOutdatedError,
    StoreSettingsError,
    StreamOutdatedError,
    StreamSettingsError,
    StreamUnavailableError,
)
from server.settings import SettingsError
from server.telemetry import configure_logging
from shopkeeper.calls import call_error

EXIT_CODES = "Exit codes: 0 ok · 1 failed · 2 usage · 3 settings · 4 dependency down · 5 gate not passed."
JsonFlag = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]

_WIDTH = 140
_DEPENDENCIES = (LogUnavailableError, StoreError, StreamUnavailableError)
_Command = TypeVar("_Command", bound=Callable[..., None])


class Exit(IntEnum):
    """Status a command ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    DEPENDENCY = 4
    GATE = 5


class CliError(Exception):
    """A command cannot do what was asked.

    Parameters
    ----------
    what : str
        What went wrong.
    why : str
        The reason, in the words of who knows it.
    then : str
        Command or act that comes next.
    code : Exit
        Status to end with.
    """

    def __init__(self, what: str, *, why: str = "", then: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.then = then
        self.code = code


def console() -> Console:
    """Return the console of standard output; without a terminal it is wide and plain."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def progress_console() -> Console:
    """Return the console of standard error."""
    return Console(stderr=True, width=None if sys.stderr.isatty() else _WIDTH)


def note(text: str) -> None:
    """Print a line of progress on standard error."""
    progress_console().print(text, highlight=False, markup=False, soft_wrap=True)


def result(data: Mapping[str, Any], shown: RenderableType, *, as_json: bool) -> None:
    """Print a result: `data` as one JSON object, or `shown` for people."""
    if as_json:
        sys.stdout.write(json.dumps(data, default=str) + "\n")
    else:
        console().print(shown)


EXPECTED = (CliError, ImportFault, SettingsError, *_DEPENDENCIES, grpc.RpcError)
"""Faults that are told in a text with the next command; any other is a bug."""


def usage_error(fault: typer.TyperException) -> int:
    """Print a usage error as the one JSON object, and return the status to end with."""
    context = getattr(fault, "ctx", None)
    command = context.command_path if context else "shopkeeper"
    error = CliError(fault.format_message(), then=f"`{command} --help`", code=Exit(fault.exit_code))
    _print_error(error, as_json=True)
    return error.code


def handled(command: _Command) -> _Command:
    """Return the command with every expected fault turned into an error text and an exit code."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        configure_logging("warning")
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(Exit.OK) from None
        except EXPECTED as fault:
            error = as_cli_error(fault)
            _print_error(error, as_json=bool(options.get("json")))
            raise typer.Exit(error.code) from None

    return cast("_Command", run)


def as_cli_error(fault: Exception) -> CliError:
    """Return an expected fault as what, why and next command."""
    match fault:
        case CliError():
            return fault
        case ImportFault():
            return CliError(fault.what, then=fault.remedy)
        case SettingsError():
            why = str(fault).partition("\n")[2] or str(fault)
            return CliError(
                "The settings cannot be used.",
                why=why.strip(),
                then="mend them (server/settings.toml documents every key), then `shopkeeper doctor`",
                code=Exit.CONFIG,
            )
        case LogUnavailableError() | StoreError() | StreamUnavailableError():
            return _of_dependency(fault)
        case grpc.RpcError():
            return _of_call(fault)
    raise fault


def exit_of(fault: Exception) -> Exit:
    """Return the status for a fault of the settings, the log, Kafka or the table view."""
    match fault:
        case SettingsError() | StreamSettingsError() | StoreSettingsError():
            return Exit.CONFIG
        case StreamOutdatedError() | StoreOutdatedError():
            return Exit.FAILED
    return Exit.DEPENDENCY


def _of_dependency(fault: Exception) -> CliError:
    names = {LogUnavailableError: "The log", StoreError: "The table view"}
    name = next((name for kind, name in names.items() if isinstance(fault, kind)), "Kafka")
    code = exit_of(fault)
    what, then = {
        Exit.CONFIG: ("does not fit its settings", "mend the setting, then `shopkeeper doctor`"),
        Exit.FAILED: ("is not up to date", "`shopkeeper migrate`"),
    }.get(code, ("is not available", "`shopkeeper doctor`"))
    return CliError(f"{name} {what}.", why=str(fault), then=then, code=code)


_CALLS: Mapping[str, tuple[str, str, Exit]] = {
    "BUNDLE_REJECTED": ("The bundle did not pass.", "mend what it names, then `shopkeeper train` again", Exit.GATE),
    "MODEL_NOT_FOUND": ("The server has no such bundle.", "`shopkeeper publish VERSION`", Exit.FAILED),
    "TRIAL_REFUSED": ("The trial makes no sense.", "`shopkeeper trial show`", Exit.FAILED),
    "PLACEMENT_NOT_FOUND": ("The server has no such placement.", "`shopkeeper placements` lists them", Exit.FAILED),
    "NO_PREVIOUS_MODEL": ("There is no bundle to go back to.", "`shopkeeper activate VERSION`", Exit.FAILED),
    "LOG_UNAVAILABLE": ("The server cannot write its log.", "`shopkeeper doctor`", Exit.DEPENDENCY),
}


def _of_call(fault: grpc.RpcError) -> CliError:
    error = call_error(fault)
    why = fault.details() if isinstance(fault, grpc.Call) else str(fault)
    if error.is_away:
        what = "The server does not answer."
        then, code = "start one with `shopkeeper serve`, or name it with `--address HOST:PORT`", Exit.DEPENDENCY
    else:
        other = (f"The server refused: {error.reason or error.status.name}.", "mend what it names", Exit.FAILED)
        what, then, code = _CALLS.get(error.reason, other)
    return CliError(what, why=why or "", then=then, code=code)


def _print_error(error: CliError, *, as_json: bool) -> None:
    if as_json:
        fault = {"what": error.what, "why": error.why, "next": error.then, "exit_code": int(error.code)}
        sys.stdout.write(json.dumps({"error": fault}) + "\n")
        return
    out = progress_console()
    out.print(f"[bold red]error[/] {_plain(error.what)}", highlight=False, soft_wrap=True)
    if error.why:
        out.print(f"  [dim]why [/] {_plain(error.why)}", highlight=False, soft_wrap=True)
    out.print(f"  [dim]next[/] {_plain(error.then)}", highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
