"""A whole evaluation: choose on validation, fit, ask the test, for every model and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from trainers.base import Progress, Tell
from trainers.blend import Blend
from trainers.offline.cost import Cost, counted
from trainers.offline.measures import accuracy, answers, measured
from trainers.offline.questions import Fold, Split
from trainers.offline.recipes import HYBRID, Recipe
from trainers.offline.tuning import QUESTIONS, Chosen, sampled, search
from trainers.offline.weights import best_weights
from trainers.recommender import Recommender

_RANDOM = "random"
"""The model that has no part in a hybrid."""


@dataclass(frozen=True)
class Row:
    """One model of one seed in the table.

    Attributes
    ----------
    model, kind : str
    seed : int
    metrics : dict[str, float]
        On the test, by `measures.measured`.
    fit_seconds, peak_mib : float
        Of the fit that the test measured; a hybrid's are its members' and its own.
    validation : float
        What the split chooses by, on validation.
    settings : dict[str, object]
        Hyper-parameters chosen there.
    """

    model: str
    kind: str
    seed: int
    metrics: dict[str, float]
    fit_seconds: float
    peak_mib: float
    validation: float
    settings: dict[str, object]


@dataclass(frozen=True)
class Evaluation:
    """Rows of all models and seeds, and the model that is best on validation."""

    split: Split
    rows: list[Row]

    @property
    def chosen(self) -> str:
        """Model of the best mean over seeds on validation; the test does not count."""
        names = dict.fromkeys(row.model for row in self.rows)
        return max(names, key=lambda name: np.mean([row.validation for row in self.rows if row.model == name]))


@dataclass
class _SeedRun:
    """What one seed has made so far, by name of the model."""

    seed: int
    chosen: dict[str, Chosen] = field(default_factory=dict)
    models: dict[str, Recommender] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def repeat(self, other: "_SeedRun", name: str) -> None:
        """Take over what another seed has made of a deterministic model."""
        self.chosen[name], self.models[name] = other.chosen[name], other.models[name]
        self.costs[name], self.metrics[name] = other.costs[name], other.metrics[name]

    def row(self, name: str, kind: str) -> Row:
        """Return the line of a model."""
        chosen, cost = self.chosen[name], self.costs[name]
        settings = dict(chosen.settings)
        return Row(name, kind, self.seed, self.metrics[name], cost.seconds, cost.peak_mib, chosen.goal, settings)


def run(
    split: Split, recipes: Mapping[str, Recipe], seeds: Sequence[int], tell: Tell, *, tuned: bool = True
) -> Evaluation:
    """Return the rows of every recipe and seed; the recipe `HYBRID`, the last, blends all before it but `random`.

    Settings are searched with the first seed and kept for the others. A deterministic model is fitted once and has the
    same row for every seed.
    """
    rows: list[Row] = []
    runs: list[_SeedRun] = []
    seeded = {name for name, recipe in recipes.items() if recipe.random(split)}
    if seeded - {_RANDOM}:
        seeded.add(HYBRID)
    for seed in seeds:
        runs.append(_SeedRun(seed))
        for name, recipe in recipes.items():
            label = f"{name}, seed {seed}"
            tell(label, 0.0)
            if len(runs) > 1 and name not in seeded:
                runs[-1].repeat(runs[0], name)
            else:
                _fit(name, recipe, split, runs, partial(tell, label), tuned=tuned)
            rows.append(runs[-1].row(name, recipe.kind))
            tell(label, 1.0)
    return Evaluation(split, rows)


def _fit(  # noqa: PLR0913 - a step of the loop above
    name: str, recipe: Recipe, split: Split, runs: list[_SeedRun], tell: Progress, *, tuned: bool
) -> None:
    current = runs[-1]
    if recipe.kind == HYBRID:
        _blend(name, split, current)
    else:
        known = recipe if len(runs) == 1 else recipe.fixed(runs[0].chosen[name].settings)
        found = search(known, split, current.seed, lambda share: tell(share * 0.8), tuned=tuned)
        with counted() as cost:
            current.models[name] = recipe.model(found.settings, current.seed).fit(split.train)
        current.chosen[name], current.costs[name] = found, cost
    popularity = np.bincount(split.train.item, minlength=split.train.n_items).astype(np.float64)
    answered = answers(current.models[name], split.test, filter_seen=split.filter_seen)
    current.metrics[name] = measured(answered, split.test, popularity)


def _unseen_goal(members: Sequence[Sequence[Recommender]], split: Split, folds: Sequence[Fold]) -> float:
    """Return what a blend reaches on each half of the questions with weights that the other half chose.

    A blend measured on what chose its weights would look better than it is beside models that chose nothing there. One
    question has no halves: 0.
    """
    pairs = [(models, fold) for models, fold in zip(members, folds, strict=True) if len(fold.questions) > 1]
    if not pairs:
        return 0.0
    reached = []
    for rest in (0, 1):
        weights = best_weights([models for models, _ in pairs], split, [_half(fold, 1 - rest) for _, fold in pairs])
        for models, fold in pairs:
            blend, questions = Blend(weights=weights).adopt(models), _half(fold, rest).questions
            reached.append(accuracy(blend, questions, filter_seen=split.filter_seen)[split.goal])
    return float(np.mean(reached))


def _half(fold: Fold, rest: int) -> Fold:
    return fold._replace(questions=fold.questions.take(np.arange(rest, len(fold.questions), 2)))


def _blend(name: str, split: Split, current: _SeedRun) -> None:
    members = {member: found for member, found in current.chosen.items() if member != _RANDOM}
    of_folds = list(zip(*(found.models for found in members.values()), strict=True))
    folds = sampled(split, QUESTIONS)
    with counted() as cost:
        weights = best_weights(of_folds, split, folds)
    named = {member: weights[2 * number : 2 * number + 2] for number, member in enumerate(members)}
    current.chosen[name] = Chosen(named, _unseen_goal(of_folds, split, folds), ())
    current.models[name] = Blend(weights=weights).adopt([current.models[member] for member in members])
    cost.seconds += sum(current.costs[member].seconds for member in members)
    cost.peak_mib = max(cost.peak_mib, *(current.costs[member].peak_mib for member in members))
    current.costs[name] = cost
