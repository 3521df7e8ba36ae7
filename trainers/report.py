"""Tables of quality: every model beside the trivial ones."""

from collections.abc import Callable, Sequence

from rich.table import Table

from trainers.baselines import all_baselines
from trainers.evaluate import MEASURES, Measured, measure, ranks_of_scores
from trainers.protocols import Task, tasks_of

Row = dict[str, str | float]
"""One line of a table: set, model and the measures."""


def row(name: str, model: str, measured: Measured) -> Row:
    """Return the line of one model on one set."""
    return {"set": name, "model": model, **measured.means()}


def baseline_rows(task: Task, split_ms: int, progress: Callable[[str, float], None]) -> list[Row]:
    """Return the lines of every baseline on every set of a task."""
    rows = []
    tasks = tasks_of(task)
    makers = all_baselines(task.train, split_ms)
    for number, (model, make) in enumerate(makers.items()):
        progress("measure baselines", number / len(makers))
        score = make()
        rows += [row(name, model, measure(asked, ranks_of_scores(asked, score))) for name, asked in tasks.items()]
    return sorted(rows, key=lambda line: str(line["set"]))


def table(rows: Sequence[Row], title: str) -> Table:
    """Return the rows for people to read."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("set")
    shown.add_column("model")
    for measure_name in MEASURES:
        shown.add_column(measure_name.replace("_", " "), justify="right")
    for line in rows:
        shown.add_row(str(line["set"]), str(line["model"]), *(f"{line[name]:.4f}" for name in MEASURES))
    return shown
