"""Whether a new bundle may take the place of the one that serves: asked on one window, visitor by visitor."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core_rs import EngineError
from trainers.dataset import Dataset, Export
from trainers.evaluate import Measured, interval
from trainers.pipeline import Fitted, Pipeline
from trainers.protocols import ANY_SHOP
from trainers.sessions import open_session

MEASURE = "ndcg_at_10"
"""What decides, on the set `all`."""
LEAST_VISITORS = 100
"""Visitors without whom nothing is decided."""


@dataclass(frozen=True)
class Verdict:
    """Comparison of a new bundle with the one that serves.

    Attributes
    ----------
    passed : bool
        Whether the new one may serve.
    why : str
        For people.
    visitors : int
        Visitors of the window that both were asked about.
    new, old : float
        Mean NDCG@10 of each.
    low, high : float
        95 % bootstrap interval of the mean difference, new less old, visitor by visitor.
    """

    passed: bool
    why: str
    visitors: int
    new: float
    old: float
    low: float
    high: float


class _Served:
    """Ranker of a bundle as onnxruntime answers it."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path)

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        (actions,) = self._session.run(["actions"], {"features": features})
        return np.asarray(actions, np.float32)


def unseen_half(export: Export, learnt_until_ms: int) -> int:
    """Return the middle of what came after the serving bundle's training: a new one learns the first half of it."""
    end_ms = int(export.dataset.time_ms.max(initial=0)) + 1
    return max(learnt_until_ms, (learnt_until_ms + end_ms) // 2)


def undecided(dataset: Dataset, split_ms: int) -> str:
    """Return why nothing can be decided on what follows the split, before anything is learnt; empty where it can."""
    count = len(ANY_SHOP.task(dataset, split_ms).visitor)
    if count >= LEAST_VISITORS:
        return ""
    return f"only {count} visitors have an answer in the window; {LEAST_VISITORS} are needed, so wait for more"


def judge(pipeline: Pipeline, fitted: Fitted, folder: Path, tolerance: float) -> Verdict:
    """Return whether the new bundle is not worse than the one in `folder` on what followed the split.

    Every visitor with an order before the split and one after it is asked about. It passes if the interval's lower end
    is not below `-tolerance` times the old mean. A bundle that does not fit this engine cannot serve, so the heuristic
    is compared instead. What is judged is the new bundle as of the split; its lists are then fitted to the whole log.
    The window must begin after the old bundle's events end, for lists that have seen the answers look better than they
    are.

    Parameters
    ----------
    pipeline : Pipeline
        After its run; its shop stands at the split, and is left with the bundle of that moment.
    fitted : Fitted
        What the run learnt.
    folder : Path
        Bundle that serves.
    tolerance : float
        Share of the old mean that may be lost, 0 to 1.
    """
    task = ANY_SHOP.task(pipeline.export.dataset, pipeline.schedule.split_ms)
    (new,) = pipeline.measured(task, "all", [None if fitted.ranking is None else fitted.ranking.ranker])
    ranker: Path | None = folder / "ranker.onnx"
    with ExitStack() as stack:
        try:
            stack.enter_context(pipeline.shop.serving(folder))
        except EngineError:
            ranker = None
        (old,) = pipeline.measured(task, "all", [_Served(ranker) if ranker and ranker.exists() else None])
    return compare(new, old, tolerance, pipeline.seeds[0])


def compare(new: Measured, old: Measured, tolerance: float, seed: int) -> Verdict:
    """Return the verdict on two models that were asked about the same visitors, at least one.

    The interval is drawn from `seed`.
    """
    ours, theirs = new.values[MEASURE], old.values[MEASURE]
    low, high = interval(ours - theirs, seed)
    floor = -tolerance * float(theirs.mean())
    passed = low >= floor
    why = f"the difference lies in {low:+.4f} to {high:+.4f}; its lower end may not be below {floor:+.4f}"
    return Verdict(passed, why, len(ours), float(ours.mean()), float(theirs.mean()), low, high)
