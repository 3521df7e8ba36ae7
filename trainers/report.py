"""Tables of quality: every model beside the trivial ones."""

from collections.abc import Callable, Sequence

from rich.table import Table

from trainers.baselines import Baselines, baselines_of
from trainers.evaluate import MEASURES, Measured, measure, ranks_of_scores
from trainers.protocols import Task, tasks_of

Row = dict[str, str | float]
"""One line of a table: set, model and the measures."""
Found = dict[tuple[str, str], list[Measured]]
"""What was measured, by set and model: one for each seed of a model with chance in it."""


def baselines(task: Task, split_ms: int, progress: Callable[[str, float], None], kind: Baselines) -> Found:
    """Return the quality of the baselines of a kind on every set of a task."""
    found: Found = {}
    task = task.of_kept_items()
    tasks = tasks_of(task)
    makers = baselines_of(kind, task.train, split_ms)
    for number, (model, make) in enumerate(makers.items()):
        progress("measure baselines", number / len(makers))
        ranks = ranks_of_scores(list(tasks.values()), make())
        for (name, asked), of_task in zip(tasks.items(), ranks, strict=True):
            found[name, model] = [measure(asked, of_task)]
    return found


def lines_of(found: Found) -> list[Row]:
    """Return the lines of a table, set by set: the mean over seeds and, where there are several, each before it.

    What was not measured, since the data have nothing of it, has a line that says so.
    """
    rows: list[Row] = []
    for (name, model), of_seeds in sorted(found.items(), key=lambda entry: entry[0][0]):
        means = [measured.means() for measured in of_seeds]
        if not means:
            rows.append({"set": name, "model": f"{model}: not in the data"})
            continue
        if len(means) > 1:
            rows += [{"set": name, "model": f"{model}, run {run}", **each} for run, each in enumerate(means, 1)]
        mean = {measure_name: sum(each[measure_name] for each in means) / len(means) for measure_name in MEASURES}
        rows.append({"set": name, "model": f"{model}, mean" if len(means) > 1 else model, **mean})
    return rows


def table(rows: Sequence[Row], title: str) -> Table:
    """Return the rows for people to read."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("set")
    shown.add_column("model")
    for measure_name in MEASURES:
        shown.add_column(measure_name.replace("_", " "), justify="right")
    for line in rows:
        shown.add_row(
            str(line["set"]), str(line["model"]), *(f"{line[name]:.4f}" if name in line else "" for name in MEASURES)
        )
    return shown
