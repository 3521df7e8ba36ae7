"""How `python -m trainers` speaks: results on standard output, progress and faults on standard error."""

import json as jsonlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import grpc
import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from trainers.base import OptionError, Tell

JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]

_FAILED, _USAGE, _DEPENDENCY = 1, 2, 4
_WIDTH = 140


def answer(data: object, shown: RenderableType, *, json: bool) -> None:
    """Print a result: `data` as one JSON object, or `shown` for people."""
    if json:
        sys.stdout.write(jsonlib.dumps(data) + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else _WIDTH).print(shown)


@contextmanager
def errors_told(*, json: bool) -> Iterator[None]:
    """End with a line that says what to mend, instead of a trace, where the fault is not ours."""
    try:
        yield
    except ConnectionError as error:
        _fail(str(error), _DEPENDENCY, json=json)
    except OptionError as error:
        _fail(str(error), _USAGE, json=json)
    except (OSError, ValueError) as error:
        _fail(str(error), _FAILED, json=json)
    except grpc.RpcError as error:
        text = error.details() if isinstance(error, grpc.Call) else str(error)
        _fail(f"the server did not answer: {text}; look at its address and log", _DEPENDENCY, json=json)


def _fail(text: str, code: int, *, json: bool) -> None:
    if json:
        sys.stdout.write(jsonlib.dumps({"error": text}) + "\n")
    else:
        Console(stderr=True).print(text, style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def progress_told() -> Iterator[Tell]:
    """Give a function that shows what is being done and how far it is, on standard error.

    Bars move on a terminal; elsewhere every step that has ended is a line, with the seconds since the line before.
    """
    out = Console(stderr=True)
    if not out.is_interactive:
        lines = _Lines(out)
        yield lines.tell
        lines.end()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as progress:
        bars: dict[str, TaskID] = {}

        def tell(what: str, share: float) -> None:
            for name, bar in bars.items():
                if name != what:
                    progress.update(bar, completed=1.0)
            if what not in bars:
                bars[what] = progress.add_task(what, total=1.0)
            progress.update(bars[what], completed=share)

        yield tell
        for bar in bars.values():
            progress.update(bar, completed=1.0)


class _Lines:
    """Steps as lines: one ends when all of it is done, when it begins anew, or when another begins."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._since = time.monotonic()
        self._what, self._share = "", 0.0
        self._is_told = True

    def tell(self, what: str, share: float) -> None:
        if what != self._what or share < self._share:
            self.end()
            self._is_told = False
        self._what, self._share = what, share
        if share >= 1.0:
            self.end()

    def end(self) -> None:
        if not self._is_told:
            now = time.monotonic()
            line = f"{now - self._since:7.1f} s  {self._what}"
            self._out.print(line, highlight=False, markup=False, soft_wrap=True)
            self._since, self._is_told = now, True
