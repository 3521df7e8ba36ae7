"""Results of an evaluation: one JSON object, a table, a plot, MLflow runs."""

import importlib.util
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from trainers.base import OptionError
from trainers.offline.runner import Evaluation, Row

_SHOWN = {
    "loo": ("R@10", "N@10", "M@10", "R@20", "N@20"),
    "sessions": ("R@20", "M@20", "N@20", "R@10", "M@10"),
    "sets": ("R@20", "N@20", "F1@20", "R@10", "N@10"),
    "baskets": ("R@10", "N@10", "R@20", "N@20", "M@10"),
}
_BEYOND = ("coverage@20", "novelty@20", "popularity_bias@20")
_STYLES = {"baseline": "dim", "model": "", "hybrid": "bold"}


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluation as the object that `--json` prints."""
    split = evaluation.split
    return {
        "protocol": split.protocol,
        "data": split.data,
        "questions": len(split.test),
        "left_out": split.left_out,
        "columns": columns_of(split.protocol),
        "rows": [asdict(row) for row in evaluation.rows],
        "chosen": evaluation.chosen,
    }


def columns_of(protocol: str) -> list[str]:
    """Return the measures that a protocol is read by, the first ones first."""
    return [*_SHOWN[protocol], *_BEYOND]


def table(evaluation: Evaluation) -> Table:
    """Return the rows for people to read, means over seeds, the chosen model marked."""
    split = evaluation.split
    seeds = sorted({row.seed for row in evaluation.rows})
    title = f"{split.protocol} {split.data}: {len(split.test):,} questions, {split.left_out:,} left out, seeds {seeds}"
    shown = Table(title=title, title_justify="left", caption="* best on validation", caption_justify="left")
    shown.add_column("model")
    names = columns_of(split.protocol)
    for name in (*names, "fit s", "peak MiB"):
        shown.add_column(name.replace("popularity_bias", "bias"), justify="right")
    for model, rows in _by_model(evaluation).items():
        mark = "*" if model == evaluation.chosen else ""
        metrics = [_mean(row.metrics.get(name) for row in rows) for name in names]
        cost = f"{np.mean([row.fit_seconds for row in rows]):.1f}", f"{max(row.peak_mib for row in rows):.0f}"
        shown.add_row(model + mark, *metrics, *cost, style=_STYLES[rows[0].kind])
    return shown


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.4f}" if known else ""


def _by_model(evaluation: Evaluation) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in evaluation.rows:
        found[row.model].append(row)
    return found


def check_options(plot_file: Path | None, uri: str) -> None:
    """Raise ValueError, which names what to do, where a plot or tracking is asked for and cannot be had."""
    if plot_file is not None and (plot_file.suffix.lower() != ".png" or not plot_file.parent.is_dir()):
        raise OptionError(f"--plot {plot_file}: name a file that ends in .png, in a folder that is there")
    if plot_file is not None and importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib; install it with `pip install 'shopkeeper[trainers]'`")
    if uri and importlib.util.find_spec("mlflow") is None:
        raise ValueError("--mlflow needs MLflow; install it with `pip install mlflow-skinny`")


def plot(evaluation: Evaluation, path: Path) -> None:
    """Draw the measure that chooses against coverage, one point a model, into a PNG file; needs matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - wanted by --plot only

    goal = evaluation.split.goal
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    for model, rows in _by_model(evaluation).items():
        x, y = (float(np.mean([row.metrics[name] for row in rows])) for name in ("coverage@20", goal))
        axes.plot(x, y, {"baseline": "o", "model": "s", "hybrid": "*"}[rows[0].kind])
        axes.annotate(model, (x, y), xytext=(5, 4), textcoords="offset points")
    axes.set(xlabel="coverage@20", ylabel=goal, title=f"{evaluation.split.protocol} {evaluation.split.data}")
    figure.savefig(path, format="png")


def track(evaluation: Evaluation, uri: str) -> None:
    """Log every row as a run of MLflow at `uri`; needs mlflow."""
    import mlflow  # noqa: PLC0415 - wanted by --mlflow only

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(f"{evaluation.split.protocol} {evaluation.split.data}")
    for row in evaluation.rows:
        with mlflow.start_run(run_name=f"{row.model}, seed {row.seed}"):
            mlflow.set_tags({"model": row.model, "kind": row.kind, "chosen": row.model == evaluation.chosen})
            mlflow.log_params({"seed": row.seed, **row.settings})
            costs = {"fit_seconds": row.fit_seconds, "peak_mib": row.peak_mib, "validation": row.validation}
            mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in (row.metrics | costs).items()})
