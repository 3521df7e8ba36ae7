"""From an export to a bundle: fit, learn to rank from past moments, decide on a validation period, measure, write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import core_rs
from trainers.base import Tell, Trainer
from trainers.bundle import FittedRanking, ManifestFacts, version_of, write_bundle
from trainers.bundle_models import fitted_models
from trainers.chosen import RANKER
from trainers.columns import CLOCK, columns_of_one_value
from trainers.dataset import Dataset, Export
from trainers.evaluate import Measured, measure, ranks_of_lists
from trainers.examples import Collector, learnable_actions
from trainers.network_ranker import NetworkRanker
from trainers.parts import Parts
from trainers.protocols import ANY_SHOP, NextBasketQuestion, Task, tasks_of
from trainers.ranker import Ranker, Rows
from trainers.rankers import RANKERS, Predictor, RankerKind
from trainers.schedule import Schedule
from trainers.shop import SETS, Shop, known

_GOLDEN_VISITORS = 8
_GOLDEN_ROWS = 32
_LEAST_EXAMPLES = 200
"""Candidates that an action followed; one that followed fewer is left out of a ranker."""
_TRIAL_CUTS = 5
"""Latest cuts that are enough to tell whether a ranker beats the heuristic."""


@dataclass(frozen=True)
class Examples:
    """What rankers learn from.

    Attributes
    ----------
    of_cuts : tuple[Rows, ...]
        Candidates of each cut, in order of time.
    actions : tuple[str, ...]
        Columns of their labels.
    """

    of_cuts: tuple[Rows, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True)
class Fitted:
    """What a pipeline learnt and how well it does.

    Attributes
    ----------
    task : Task
        What was asked.
    models : list[Trainer]
        As of the split.
    actions : tuple[str, ...]
        What the ranker predicts.
    ranking : FittedRanking | None
        The ranker with candidates of the split; None where the heuristic ranks better.
    measured : dict[tuple[str, str], list[Measured]]
        Quality by set and by `ranker` or `heuristic`; a ranker has one for each seed.
    """

    task: Task
    models: list[Trainer]
    actions: tuple[str, ...]
    ranking: FittedRanking | None
    measured: dict[tuple[str, str], list[Measured]]

    @property
    def ranked_by(self) -> str:
        """What ranks in the bundle."""
        return "heuristic" if self.ranking is None else "ranker"


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
    question : NextBasketQuestion
        What the models are compared by.
    """

    def __init__(  # noqa: PLR0913 - what options name
        self,
        export: Export,
        schedule: Schedule,
        *,
        seeds: tuple[int, ...],
        progress: Tell,
        ranker: RankerKind = RANKER,
        parts: tuple[str, ...] = (),
        question: NextBasketQuestion = ANY_SHOP,
    ) -> None:
        self.export = export
        self.schedule = schedule
        self.seeds = seeds
        self.progress = progress
        self.ranker = ranker
        self.question = question
        self.known = export.dataset.before(schedule.split_ms)
        self.parts = Parts(parts, seeds[0])
        self.shop = Shop(export.events, export.items, export.placements, export.time_zone)
        self.collector = Collector(self.known, tuple(SETS.values()), seed=seeds[0])

    def run(self) -> Fitted:
        """Learn from what is before the split, measure on what follows."""
        with TemporaryDirectory() as folder:
            trial = self._until_validation(Path(folder))
            beats_heuristic = self._beats_heuristic(trial)
            examples = self._until_split(trial, Path(folder))
            models = self._enter(self.schedule.split_ms, examples.actions, Path(folder))
        found = [self._fit(examples.of_cuts, seed=seed) for seed in self.seeds] if beats_heuristic else []
        rankers = [ranker for ranker in found if ranker is not None]
        task, by_set = self._measured_now([None, *rankers])
        measured = {}
        for name, (heuristic, *of_seeds) in by_set.items():
            measured[name, "heuristic"] = [heuristic]
            if of_seeds:
                measured[name, "ranker"] = of_seeds
        ranking = self._ranking(rankers[0], task) if rankers else None
        return Fitted(task, models, examples.actions, ranking, measured)

    def compare(self, without: Mapping[str, tuple[int, ...]]) -> dict[tuple[str, str], list[Measured]]:
        """Return the quality of rankers that must not read some columns, by set and by the name of what they lack.

        Each has one measure for each seed; none where the rows tell nothing of any of the columns.

        Raises
        ------
        ValueError
            When the data are too few for a ranker.
        """
        with TemporaryDirectory() as folder:
            examples = self._until_split(self._until_validation(Path(folder)), Path(folder))
            self._enter(self.schedule.split_ms, examples.actions, Path(folder))
        past = examples.of_cuts
        untold = columns_of_one_value([rows.features for rows in past])
        fits = {
            name: [self._fit(past, seed=seed, without=lost) for seed in self.seeds if not lost or set(lost) - untold]
            for name, lost in without.items()
        }
        rankers = [ranker for of_seeds in fits.values() for ranker in of_seeds]
        if None in rankers:
            raise ValueError("the data are too few for a ranker; take a longer history")
        measured: dict[tuple[str, str], list[Measured]] = {}
        for name, values in self._measured_now(rankers)[1].items():
            found = iter(values)
            measured |= {(name, lost): [next(found) for _ in of_seeds] for lost, of_seeds in fits.items()}
        return measured

    def models_of(self, dataset: Dataset, *, latest: bool) -> list[Trainer]:
        """Return every model of a bundle that knows `dataset`, fitted; a bundle that serves needs the `latest` ones."""
        parts = self.parts.at(dataset, lambda share: self.progress("learn the encoder", share), latest=latest)
        return [*fitted_models(dataset), *parts]

    def measured(self, task: Task, name: str, rankers: Sequence[Predictor | None]) -> list[Measured]:
        """Return the quality of what the shop now shows the visitors of `task` by each ranker; None: the heuristic."""
        lists: list[list[list[str]]] = [[] for _ in rankers]
        asked = [known(task.train.visitors[visitor]) for visitor in task.visitor.tolist()]
        for number, plan in enumerate(self.shop.plans(asked, SETS[name])):
            self.progress(f"measure {name}", number / len(asked))
            for shown, ranker in zip(lists, rankers, strict=True):
                shown.append(self.shop.slate(plan, None if ranker is None else ranker.predict(plan.features)))
        return [measure(task, ranks_of_lists(task, shown)) for shown in lists]

    def _measured_now(self, rankers: Sequence[Predictor | None]) -> tuple[Task, dict[str, list[Measured]]]:
        """Return what is asked at the split, where the shop stands, and the quality of each ranker by set."""
        task = self.question.task(self.export.dataset, self.schedule.split_ms)
        return task, {name: self.measured(asked, name, rankers) for name, asked in tasks_of(task).items()}

    def _until_validation(self, folder: Path) -> Examples:
        """Return the candidates of the cuts before the validation, where the shop then stands if that is a cut.

        Actions that followed too few of those that the trial ranker learns from are left out from there on.
        """
        cuts = [cut for cut in self.schedule.cuts if cut < self.schedule.validation_ms]
        examples = self._collected(Examples((), learnable_actions(self.known)), cuts, folder)
        if self.schedule.validation_ms in self.schedule.cuts:
            examples = self._of_common_actions(examples)
            self._tell_cut(self.schedule.validation_ms)
            self._enter(self.schedule.validation_ms, examples.actions, folder)
        return examples

    def _until_split(self, examples: Examples, folder: Path) -> Examples:
        """Return the candidates of all cuts, of which `examples` are those before the validation."""
        return self._collected(examples, self.schedule.cuts[len(examples.of_cuts) :], folder)

    def _collected(self, examples: Examples, cuts: Sequence[int], folder: Path) -> Examples:
        """Return `examples` with the candidates of more cuts; the shop is moved to those it does not stand at."""
        found = list(examples.of_cuts)
        for cut in cuts:
            self._tell_cut(cut)
            if cut > self.shop.now_ms:
                self._enter(cut, examples.actions, folder)
            found.append(self.collector.collect(self.shop, examples.actions, self.schedule.end_ms(cut)))
        return replace(examples, of_cuts=tuple(found))

    def _tell_cut(self, cut: int) -> None:
        self.progress("learn from the past", self.schedule.cuts.index(cut) / len(self.schedule.cuts))

    def _trial(self, examples: Examples) -> tuple[Rows, ...]:
        """Return the candidates that tell whether a ranker beats the heuristic: their answers end before validation."""
        return examples.of_cuts[: self.schedule.answered][-_TRIAL_CUTS:]

    def _of_common_actions(self, examples: Examples) -> Examples:
        """Return `examples` without the actions that followed too few of the candidates of the trial.

        All stay where no action followed enough: there is no ranker then.
        """
        trial = self._trial(examples)
        followed, not_followed = np.sum([rows.outcomes for rows in trial], axis=0) if trial else np.zeros((2, 0))
        common = (followed >= _LEAST_EXAMPLES) & (not_followed > 0)
        if not common.any() or common.all():
            return examples
        names = np.array(examples.actions)
        for name, count in zip(names[~common].tolist(), followed[~common].tolist(), strict=True):
            why = f"it followed {count} of the candidates, and a ranker needs {_LEAST_EXAMPLES}"
            self.progress(f"leave out the action {name}: {why}", 1.0)
        return Examples(tuple(rows.of_actions(common) for rows in examples.of_cuts), tuple(names[common].tolist()))

    def _enter(self, now_ms: int, actions: tuple[str, ...], folder: Path) -> list[Trainer]:
        """Move the shop to `now_ms` with the models of that moment, and return them."""
        past = self.known.before(now_ms)
        models = self.models_of(past, latest=now_ms == self.schedule.split_ms)
        width = len(core_rs.feature_names())
        blank = FittedRanking(NetworkRanker.blank(width, len(actions)), np.zeros((1, width), np.float32))
        facts = ManifestFacts(f"moment-{now_ms}", now_ms, actions, time_zone=self.export.time_zone)
        self.shop.advance(now_ms)
        self.shop.install(write_bundle(folder, facts, past, models, blank if actions else None))
        return models

    def _fit(self, parts: Sequence[Rows], **options: Any) -> Ranker | None:
        if not parts:
            return None
        rows = Rows.concatenate(parts)
        followed, not_followed = rows.outcomes
        if not ((followed >= _LEAST_EXAMPLES) & (not_followed > 0)).all():
            return None
        options["without"] = (*options.get("without", ()), *CLOCK)
        return RANKERS[self.ranker](**options).fit(rows, lambda share: self.progress("fit the ranker", share))

    def _beats_heuristic(self, examples: Examples) -> bool:
        """Return whether a ranker taught by the trial beats the heuristic on validation, where the shop stands."""
        ranker = self._fit(self._trial(examples), seed=self.seeds[0])
        if ranker is None:
            return False
        moments = self.schedule.validation_ms, self.schedule.split_ms
        task = self.question.task(self.known, moments[0], until_ms=moments[1])
        gain = 0.0
        for name, asked in tasks_of(task).items():
            by_ranker, by_heuristic = (found.means() for found in self.measured(asked, name, [ranker, None]))
            gain += by_ranker["ndcg_at_10"] - by_heuristic["ndcg_at_10"]
        return gain > 0

    def _ranking(self, ranker: Ranker | None, task: Task) -> FittedRanking | None:
        if ranker is None:
            return None
        asked = [known(task.train.visitors[visitor]) for visitor in task.visitor[:_GOLDEN_VISITORS].tolist()]
        rows = [plan.features[:_GOLDEN_ROWS] for plan in self.shop.plans(asked, SETS["all"])]
        blank = np.zeros((1, len(core_rs.feature_names())), np.float32)
        return FittedRanking(ranker, np.concatenate([blank, *rows]))


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
    if fitted.ranking is not None:
        metrics |= fitted.ranking.ranker.metrics(fitted.actions)
    options = [*([] if pipeline.ranker is RANKER else [pipeline.ranker.value]), *pipeline.parts.names]
    version = version_of(int(known.time_ms.max(initial=0)), export.export_ms, seed, options)
    actions = () if fitted.ranking is None else fitted.actions
    made = {"ranker": pipeline.ranker.value, "item_vectors": export.item_vectors}
    facts = ManifestFacts(version, export.export_ms, actions, seed, export.time_zone, metrics, **made)
    write_bundle(out, facts, known, models, fitted.ranking)
    return version
