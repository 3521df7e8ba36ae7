"""Curves that tell more than a table."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from trainers.report import Found

_OF_THE_ENGINE = ("heuristic", "ranker")


def draw_recall(found: Found, path: Path) -> None:
    """Draw the recall at 1 to 50 of every model into the PNG file `path`, a panel for each set.

    What the engine ranks is drawn thick, baselines thin; a model with several seeds is drawn as their mean.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    names = sorted({name for name, _ in found})
    figure = Figure(figsize=(6 * len(names), 5), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        curves = {
            model: np.mean([one.recall for one in runs], axis=0) for (of, model), runs in found.items() if of == name
        }
        for (model, recall), color in zip(curves.items(), mpl.color_sequences["tab10"], strict=False):
            width = 2.5 if model in _OF_THE_ENGINE else 1.0
            panel.plot(np.arange(1, len(recall) + 1), recall, label=model, linewidth=width, color=color)
        panel.set(title=f"{name} items", xlabel="items shown (k)", ylabel="recall@k", xlim=(1, None), ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, format="png", dpi=120)
