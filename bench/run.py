"""Measure the goals of speed and memory: `make bench`, or `make bench ONLY=G1` for one.

A timing never fails anything. A wrong answer does: the status is 1 then, and the row keeps its last good numbers.
"""

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from measure import MissingToolError, WrongAnswerError, machine
from rich.console import Console
from rich.table import Table

RESULTS: Final = Path(__file__).parent / "results" / "latest.json"
GOALS: Final = {
    "G1": "goals.g1_recommend",
    "G2": "goals.g2_vectors",
    "G3": "goals.g3_scan",
    "NEAR": "goals.near",
    "G4": "goals.g4_trees",
    "G5": "goals.g5_kernel",
    "G6": "goals.g6_events",
    "G9": "goals.g9_item_to_item",
    "M": "goals.m_memory",
    "START": "goals.start",
    "LAG": "goals.lag",
    "SCALE": "goals.scale",
    "SINK": "goals.sink",
    "REPLAY": "goals.replay",
}

_WHOLE: Final = 1_000
"""From here on digits after the point say nothing."""

_errors = Console(stderr=True, highlight=False)


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"Goal to measure: {', '.join(GOALS)}; may be repeated.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Measure the goals, print a table, and write the rows to bench/results/latest.json."""
    names = [name.upper() for name in only or GOALS]
    if unknown := set(names) - set(GOALS):
        raise typer.BadParameter(f"no such goal: {', '.join(sorted(unknown))}; give one of {', '.join(GOALS)}")
    measured: list[dict[str, Any]] = []
    faults: list[str] = []
    for name in names:
        _errors.print(f"[bold]{name}[/]")
        try:
            rows = importlib.import_module(GOALS[name]).measure(lambda text: _errors.print(f"  {text}"))
        except (WrongAnswerError, MissingToolError) as error:
            faults.append(f"{name}: {error}")
            continue
        facts = {"command": f"make bench ONLY={name}", "machine": machine()}
        measured += [{**asdict(row), **facts} for row in rows]
        _keep(measured)
    if json_:
        typer.echo(json.dumps(measured, indent=2))
    else:
        _print(measured)
    for fault in faults:
        _errors.print(f"[bold red]not measured[/] {fault}")
    raise typer.Exit(bool(faults))


def _keep(measured: list[dict[str, Any]]) -> None:
    """Replace the rows of the same names; the others stay."""
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = {row["name"]: row for row in [*known, *measured]}
    order = list(GOALS)
    ordered = sorted(rows.values(), key=lambda row: (order.index(row["name"].split()[0]), row["name"]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(ordered, indent=2) + "\n")


def _print(rows: list[dict[str, Any]]) -> None:
    console = Console(highlight=False)
    console.print(machine())
    table = Table("goal", "value", "peer", "peer's", "ratio", "spread", "runs")
    for row in rows:
        spread = " to ".join(_short(value) for value in row["spread"] or ())
        value = f"{_short(row['value'])} {row['unit']}"
        numbers = [_short(row["peer_value"]), _short(row["ratio"]), spread, str(row["runs"])]
        table.add_row(row["name"], value, row["peer"], *numbers)
    console.print(table)
    for row in rows:
        detail = ", ".join(f"{name} {_short(value)}" for name, value in row["detail"].items())
        console.print(f"[bold]{row['name']}[/] {detail}", soft_wrap=True)


def _short(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) and abs(value) < _WHOLE else f"{value:,.0f}"


if __name__ == "__main__":
    typer.run(main)
