"""From an export to a bundle: fit, learn to rank from past moments, decide on a validation period, measure, write."""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import core_rs
from trainers.base import DAY_MS, Trainer
from trainers.bundle import Card, Golden, write_bundle
from trainers.dataset import ACTIONS, Dataset, Export
from trainers.evaluate import Measured, Metric, measure, ranks_of_lists
from trainers.examples import Collector, learnable_actions
from trainers.item_to_item import AlsoBought, AlsoViewed, BoughtTogether
from trainers.next_basket import NextBasket
from trainers.popular import Popular
from trainers.protocols import NextBasket as Protocol
from trainers.protocols import Task
from trainers.ranker import Ranker, Rows
from trainers.shop import DISCOVER, HOME, Shop
from trainers.user_to_user import UserToUser

Progress = Callable[[str, float], None]
"""Called with what is being done and the share that is done."""

Row = dict[str, object]
"""One line of a quality table."""

SETS = {"all": HOME, "explore": DISCOVER}
"""Placement that answers each set of the protocol."""

_GOLDEN_ROWS = 256
_LEAST_EXAMPLES = 200


@dataclass(frozen=True)
class Plan:
    """Moments that training looks at.

    Attributes
    ----------
    split_ms : int
        Models see what is before; measured is what follows.
    horizon_ms : int
        Time in which a visitor's next visit counts as an answer.
    cuts : tuple[int, ...]
        Past moments to learn to rank from, ascending.
    validation_ms : int
        Cut that decides between ranker and rules; those whose answers end before it may teach the ranker it judges.
    """

    split_ms: int
    horizon_ms: int
    cuts: tuple[int, ...]
    validation_ms: int


def plan_of(dataset: Dataset, split_ms: int, *, weeks: int = 16) -> Plan:
    """Return weekly cuts before `split_ms`, as many as leave half of the time before them as history."""
    history = split_ms - int(dataset.time_ms.min(initial=split_ms))
    step = min(7 * DAY_MS, max(history // 8, 1))
    count = max(3, min(weeks, history // 2 // step))
    cuts = tuple(split_ms - step * number for number in range(count, 0, -1))
    return Plan(split_ms, 2 * step, cuts, split_ms - 2 * step)


def split_of(export: Export) -> int:
    """Return the moment to measure at when none is named: where held-out events begin, else 28 days before the end."""
    if export.held_out_ms is not None:
        return export.held_out_ms
    times = export.dataset.time_ms
    span = int(times.max(initial=0) - times.min(initial=0))
    return int(times.max(initial=0)) + 1 - min(28 * DAY_MS, span // 4)


def models_of(dataset: Dataset, seed: int) -> list[Trainer]:
    """Return every model of a bundle that `dataset` has rows for, fitted."""
    wanted: tuple[tuple[Trainer, tuple[str, ...]], ...] = (
        (AlsoViewed(seed=seed), AlsoViewed.actions),
        (AlsoBought(seed=seed), AlsoBought.actions),
        (BoughtTogether(seed=seed), BoughtTogether.actions),
        (NextBasket(n_groups=1, within=0.97, length=300, seed=seed), ("purchase",)),
        (UserToUser(seed=seed), ("purchase",)),
        (Popular(seed=seed), ("purchase",)),
    )
    present = set(np.unique(dataset.action).tolist())
    return [
        model.fit(dataset) for model, actions in wanted if not present.isdisjoint(ACTIONS[name] for name in actions)
    ]


@dataclass
class Trained:
    """What training made.

    Attributes
    ----------
    version : str
    folder : Path
    rows : list[Row]
        Quality of what was measured.
    ranked_by : str
        `ranker` or `rules`.
    """

    version: str
    folder: Path
    rows: list[Row] = field(default_factory=list)
    ranked_by: str = "ranker"


class Pipeline:
    """Training of one export.

    Parameters
    ----------
    export : Export
    plan : Plan
    seed : int
    progress : Progress
    """

    def __init__(self, export: Export, plan: Plan, *, seed: int, progress: Progress) -> None:
        self.export = export
        self.plan = plan
        self.seed = seed
        self.progress = progress
        self.actions = learnable_actions(export.dataset.before(plan.split_ms))
        placements = {placement.placement_id for placement in export.placements}
        self.sets = {name: placement_id for name, placement_id in SETS.items() if placement_id in placements}
