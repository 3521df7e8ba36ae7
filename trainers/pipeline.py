"""From an export to a bundle: fit, learn to rank from past moments, decide on a validation period, measure, write."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.base import DAY_MS, Tell, Trainer
from trainers.bundle import Card, Tried, version_of, write_bundle
from trainers.columns import CLOCK, columns_of_one_value
from trainers.dataset import ACTIONS, Dataset, Export
from trainers.evaluate import Measured, measure, ranks_of_lists
from trainers.examples import Collector, learnable_actions
from trainers.item_to_item import AlsoBought, AlsoViewed, BoughtTogether
from trainers.network_ranker import NetworkRanker
from trainers.next_basket import NextBasket
from trainers.parts import Parts
from trainers.popular import Popular
from trainers.protocols import Question, Task, tasks_of
from trainers.ranker import Ranker, Rows
from trainers.shop import SETS, Shop, known
from trainers.tree_ranker import TreeRanker
from trainers.user_to_user import UserToUser


class RankerKind(StrEnum):
    """What a ranker is made of."""

    TREES = "trees"
    NETWORK = "network"


_RANKERS: dict[RankerKind, Callable[..., Ranker]] = {
    RankerKind.TREES: TreeRanker,
    RankerKind.NETWORK: NetworkRanker,
}


DEFAULT_RANKER = RankerKind.NETWORK
"""The better one by NDCG@10 of whole baskets on the validation weeks of Complete Journey."""


class Predictor(Protocol):
    """What foretells actions from the features of candidates: a `Ranker`, or the graph of a bundle."""

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the actions of every row, shape (n, h)."""
        ...


_GOLDEN_VISITORS = 8
_GOLDEN_ROWS = 32
_LEAST_EXAMPLES = 200
"""Candidates that an action followed; one that followed fewer is left out of a ranker."""
_TRIAL_CUTS = 5
"""Latest cuts that are enough to tell whether a ranker beats the heuristic."""


@dataclass(frozen=True)
class Schedule:
    """Moments that training looks at.

    Attributes
    ----------
    split_ms : int
        Models see what is before; what follows measures them.
    horizon_ms : int
        Time in which a visitor's next visit counts as an answer.
    cuts : tuple[int, ...]
        Past moments to learn to rank from, ascending.
    validation_ms : int
        The cut that decides between ranker and heuristic.
    """

    split_ms: int
    horizon_ms: int
    cuts: tuple[int, ...]
    validation_ms: int

    @classmethod
    def weekly(cls, dataset: Dataset, split_ms: int, *, weeks: int = 16) -> "Schedule":
        """Return a cut for each of the last `weeks`; a shorter history is cut closer, and half of it is never cut."""
        history = split_ms - int(dataset.time_ms.min(initial=split_ms))
        step = max(min(7 * DAY_MS, history // 12), 1)
        count = min(weeks, max(history // 2 // step, 0))
        cuts = tuple(split_ms - step * number for number in range(count, 0, -1))
        return cls(split_ms, 2 * step, cuts, split_ms - 2 * step)


def split_of(export: Export) -> int:
    """Return the moment to measure at where none is named: where held-out events begin, else 28 days before the end.

    A log of less than 16 weeks has its last quarter measured.
    """
    if export.held_out_ms is not None:
        return export.held_out_ms
    start, end = (int(end(export.dataset.time_ms, initial=0)) for end in (np.min, np.max))
    return end + 1 - min(28 * DAY_MS, (end - start) // 4)


def usual_models(seed: int) -> list[tuple[Trainer, tuple[str, ...]]]:
    """Return every model that is in each bundle, not fitted yet, with the event types that it learns from."""
    return [
        (AlsoViewed(seed=seed), AlsoViewed.actions),
        (AlsoBought(seed=seed), AlsoBought.actions),
        (BoughtTogether(seed=seed), BoughtTogether.actions),
        (NextBasket(n_groups=1, within=0.97, length=300, seed=seed), ("purchase",)),
        (UserToUser(seed=seed), ("purchase",)),
        (Popular(seed=seed), ("purchase",)),
    ]


def fitted_models(dataset: Dataset, seed: int) -> list[Trainer]:
    """Return every model that is in each bundle and that `dataset` has rows for, fitted."""
    present = set(np.unique(dataset.action).tolist())
    return [
        model.fit(dataset)
        for model, actions in usual_models(seed)
        if not present.isdisjoint(ACTIONS[name] for name in actions)
    ]


@dataclass(frozen=True)
class Fitted:
    """What a pipeline learnt and how well it does.

    Attributes
    ----------
    task : Task
        What was asked.
    models : list[Trainer]
        As of the split.
    tried : Tried | None
        The ranker with candidates of the split; None where the heuristic ranks better.
    measured : dict[tuple[str, str], list[Measured]]
        Quality by set and by `ranker` or `heuristic`; a ranker has one for each seed.
    """

    task: Task
    models: list[Trainer]
    tried: Tried | None
    measured: dict[tuple[str, str], list[Measured]]

    @property
    def ranked_by(self) -> str:
        """What ranks in the bundle."""
        return "heuristic" if self.tried is None else "ranker"


class Pipeline:
    """Training and measuring on one export.

    Parameters
    ----------
    export : Export
    schedule : Schedule
    seeds : tuple[int, ...]
        A ranker is taught and measured for each; the first one's is for serving, and draws the candidates of all.
    progress : Tell
    ranker : RankerKind
    parts : tuple[str, ...]
        What a bundle holds on request, as `trainers.parts.parts_of` names it.
    question : Question
        What the models are compared by.
    """

    def __init__(  # noqa: PLR0913 - what options name
        self,
        export: Export,
        schedule: Schedule,
        *,
        seeds: tuple[int, ...],
        progress: Tell,
        ranker: RankerKind = DEFAULT_RANKER,
        parts: tuple[str, ...] = (),
        question: Question = Question.NEXT_BASKET,
    ) -> None:
        self.export = export
        self.schedule = schedule
        self.seeds = seeds
        self.progress = progress
        self.ranker = ranker
        self.question = question
        self.known = export.dataset.before(schedule.split_ms)
        self.actions = learnable_actions(self.known)
        self.parts = Parts(parts, seeds[0])
        self.shop = Shop(export.events, export.items, export.placements, export.time_zone)

    def run(self) -> Fitted:
        """Learn from what is before the split, measure on what follows."""
        with TemporaryDirectory() as folder:
            past, beats_heuristic = self._learn(Path(folder))
            models = self._enter(self.schedule.split_ms, Path(folder))
        rankers = [self._fit(past, seed=seed) for seed in self.seeds] if beats_heuristic else []
        found = [ranker for ranker in rankers if ranker is not None]
        task = self.question.make(self.schedule.split_ms).task(self.export.dataset)
        measured = {}
        for name, asked in tasks_of(task).items():
            heuristic, *of_seeds = self.measured(asked, name, [None, *found])
            measured[name, "heuristic"] = [heuristic]
            if of_seeds:
                measured[name, "ranker"] = of_seeds
        return Fitted(task, models, self._tried(found[0], task) if found else None, measured)

    def compare(self, without: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, str], list[Measured]]:
        """Return the quality of rankers that must not read some columns, by set and by the name of what they lack.

        Each has one measure for each seed; none where the rows tell nothing of any of the columns.

        Raises
        ------
        ValueError
            When the data are too few for a ranker.
        """
        with TemporaryDirectory() as folder:
            past, _ = self._learn(Path(folder), judge=False)
            self._enter(self.schedule.split_ms, Path(folder))
        untold = columns_of_one_value([part.features for part in past])
        fits = {
            name: [self._fit(past, seed=seed, without=lost) for seed in self.seeds if not lost or set(lost) - untold]
            for name, lost in without.items()
        }
        rankers = [ranker for of_seeds in fits.values() for ranker in of_seeds]
        if None in rankers:
            raise ValueError("the data are too few for a ranker; take a longer history")
        task = self.question.make(self.schedule.split_ms).task(self.export.dataset)
        measured: dict[tuple[str, str], list[Measured]] = {}
        for name, asked in tasks_of(task).items():
            found = iter(self.measured(asked, name, rankers))
            measured |= {(name, lost): [next(found) for _ in of_seeds] for lost, of_seeds in fits.items()}
        return measured

    def models_of(self, dataset: Dataset, *, latest: bool) -> list[Trainer]:
        """Return every model of a bundle that knows `dataset`, fitted; a bundle that serves needs the `latest` ones."""
        parts = self.parts.at(dataset, lambda share: self.progress("learn the encoder", share), latest=latest)
        return [*fitted_models(dataset, self.seeds[0]), *parts]

    def measured(self, task: Task, name: str, rankers: Sequence[Predictor | None]) -> list[Measured]:
        """Return the quality of what the shop now shows the visitors of `task` by each ranker; None: the heuristic."""
        lists: list[list[list[str]]] = [[] for _ in rankers]
        asked = [known(task.train.visitors[visitor]) for visitor in task.visitor.tolist()]
        for number, plan in enumerate(self.shop.plans(asked, SETS[name])):
            self.progress(f"measure {name}", number / len(asked))
            for shown, ranker in zip(lists, rankers, strict=True):
                shown.append(self.shop.slate(plan, None if ranker is None else ranker.predict(plan.features)))
        return [measure(task, ranks_of_lists(task, shown)) for shown in lists]

    def _learn(self, folder: Path, *, judge: bool = True) -> tuple[list[Rows], bool]:
        """Return candidates of all cuts and, where `judge`, whether a ranker beats the heuristic on validation."""
        collector = Collector(self.known, self.actions, tuple(SETS.values()), seed=self.seeds[0])
        past: list[Rows] = []
        beats_heuristic = False
        for number, cut in enumerate(self.schedule.cuts):
            self.progress("learn from the past", number / len(self.schedule.cuts))
            if cut == self.schedule.validation_ms:
                over = sum(when + self.schedule.horizon_ms <= cut for when in self.schedule.cuts)
                past = self._of_common_actions(past, past[:over][-_TRIAL_CUTS:])
                collector.actions = self.actions
            self._enter(cut, folder)
            if judge and cut == self.schedule.validation_ms:
                beats_heuristic = self._beats_heuristic(self._fit(past[:over][-_TRIAL_CUTS:], seed=self.seeds[0]))
            past.append(collector.collect(self.shop, min(cut + self.schedule.horizon_ms, self.schedule.split_ms)))
        return past, beats_heuristic

    def _of_common_actions(self, past: list[Rows], trial: list[Rows]) -> list[Rows]:
        """Return `past` without the actions, from now on left out, that followed too few of the candidates of `trial`.

        All stay where no action followed enough: there is no ranker then.
        """
        followed, not_followed = np.sum([rows.outcomes for rows in trial], axis=0) if trial else np.zeros((2, 0))
        common = (followed >= _LEAST_EXAMPLES) & (not_followed > 0)
        if not common.any() or common.all():
            return past
        for name, count in zip(np.array(self.actions)[~common].tolist(), followed[~common].tolist(), strict=True):
            why = f"it followed {count} of the candidates, and a ranker needs {_LEAST_EXAMPLES}"
            self.progress(f"leave out the action {name}: {why}", 1.0)
        self.actions = tuple(np.array(self.actions)[common].tolist())
        return [rows.of_actions(common) for rows in past]

    def _enter(self, now_ms: int, folder: Path) -> list[Trainer]:
        """Move the shop to `now_ms` with the models of that moment, and return them."""
        past = self.known.before(now_ms)
        models = self.models_of(past, latest=now_ms == self.schedule.split_ms)
        width = len(core_rs.feature_names())
        blank = Tried(NetworkRanker.blank(width, len(self.actions)), np.zeros((1, width), np.float32))
        card = Card(f"moment-{now_ms}", now_ms, self.actions, time_zone=self.export.time_zone)
        self.shop.advance(now_ms)
        self.shop.install(write_bundle(folder, card, past, models, blank if self.actions else None))
        return models

    def _fit(self, parts: list[Rows], **options: Any) -> Ranker | None:
        if not parts:
            return None
        rows = Rows.concatenate(parts)
        followed, not_followed = rows.outcomes
        if not ((followed >= _LEAST_EXAMPLES) & (not_followed > 0)).all():
            return None
        options["without"] = (*options.get("without", ()), *CLOCK)
        return _RANKERS[self.ranker](**options).fit(rows, lambda share: self.progress("fit the ranker", share))

    def _beats_heuristic(self, ranker: Ranker | None) -> bool:
        if ranker is None:
            return False
        task = self.question.make(self.schedule.validation_ms, until_ms=self.schedule.split_ms).task(self.known)
        gain = 0.0
        for name, asked in tasks_of(task).items():
            by_ranker, by_heuristic = (found.means() for found in self.measured(asked, name, [ranker, None]))
            gain += by_ranker["ndcg_at_10"] - by_heuristic["ndcg_at_10"]
        return gain > 0

    def _tried(self, ranker: Ranker | None, task: Task) -> Tried | None:
        if ranker is None:
            return None
        asked = [known(task.train.visitors[visitor]) for visitor in task.visitor[:_GOLDEN_VISITORS].tolist()]
        rows = [plan.features[:_GOLDEN_ROWS] for plan in self.shop.plans(asked, SETS["all"])]
        blank = np.zeros((1, len(core_rs.feature_names())), np.float32)
        return Tried(ranker, np.concatenate([blank, *rows]))


def write(fitted: Fitted, pipeline: Pipeline, out: Path) -> str:
    """Write the bundle below `out` and return its version.

    Where the log goes on after the split, the models learn from all of it; the ranker stays as measured.
    """
    export, seed = pipeline.export, pipeline.seeds[0]
    known, models = pipeline.known, fitted.models
    if export.held_out_ms is None and len(export.dataset) > len(known):
        known, models = export.dataset, pipeline.models_of(export.dataset, latest=True)
    metrics = {
        f"{name}/{metric}": value
        for (name, model), (measured, *_) in fitted.measured.items()
        if model == fitted.ranked_by
        for metric, value in measured.metrics(seed).items()
    }
    if fitted.tried is not None:
        metrics |= fitted.tried.ranker.metrics(pipeline.actions)
    version = version_of(int(known.time_ms.max(initial=0)), export.export_ms, seed)
    actions = () if fitted.tried is None else pipeline.actions
    made = {"ranker": pipeline.ranker.value, "item_vectors": export.item_vectors}
    card = Card(version, export.export_ms, actions, seed, export.time_zone, metrics, **made)
    write_bundle(out, card, known, models, fitted.tried)
    return version
