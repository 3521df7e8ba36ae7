"""A whole evaluation: choose on validation, fit, ask the test, for every model and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from trainers.blend import Blend
from trainers.offline.cost import Cost, counted
from trainers.offline.measures import answers, measured
from trainers.offline.questions import Trial
from trainers.offline.recipes import HYBRID, Recipe
from trainers.offline.tuning import QUESTIONS, Chosen, goal_of, search
from trainers.offline.weights import best_weights
from trainers.recommender import Recommender

Tell = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""


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
        What the trial chooses by, on validation.
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
class Outcome:
    """Rows of an evaluation, and the model that is best on validation."""

    trial: Trial
    rows: list[Row]

    @property
    def chosen(self) -> str:
        """Model of the best mean over seeds on validation; the test has no say."""
        names = dict.fromkeys(row.model for row in self.rows)
        return max(names, key=lambda name: np.mean([row.validation for row in self.rows if row.model == name]))


@dataclass
class _Turn:
    """What one seed has made so far."""

    seed: int
    chosen: dict[str, Chosen] = field(default_factory=dict)
    models: dict[str, Recommender] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)


def run(
    trial: Trial, recipes: Mapping[str, Recipe], seeds: Sequence[int], tell: Tell, *, tuned: bool = True
) -> Outcome:
    """Return the rows of every recipe and seed; the recipe `HYBRID`, the last, blends all before it but chance.

    Settings are searched with the first seed and kept for the others; weights are chosen for each.
    """
    rows: list[Row] = []
    searched = dict(recipes)
    for seed in seeds:
        turn = _Turn(seed)
        for name, recipe in searched.items():
            tell(f"{name}, seed {seed}", 0.0)
            if recipe.kind == HYBRID:
                _blend(name, trial, turn)
            else:
                found = _single(name, recipe, trial, turn, tell, tuned=tuned)
                searched[name] = recipe.fixed(found.settings)
            rows.append(_row(name, recipe.kind, trial, turn))
            tell(f"{name}, seed {seed}", 1.0)
    return Outcome(trial, rows)


def _single(name: str, recipe: Recipe, trial: Trial, turn: _Turn, tell: Tell, *, tuned: bool) -> Chosen:  # noqa: PLR0913
    label = f"{name}, seed {turn.seed}"
    found = search(recipe, trial, turn.seed, lambda share: tell(label, share * 0.8), tuned=tuned)
    with counted() as cost:
        turn.models[name] = recipe.make(**found.settings, seed=turn.seed).fit(trial.train)
    turn.chosen[name], turn.costs[name] = found, cost
    return found


def _blend(name: str, trial: Trial, turn: _Turn) -> None:
    members = {member: found for member, found in turn.chosen.items() if member != "random"}
    questions = trial.validation.sample(QUESTIONS)
    with counted() as cost:
        weights = best_weights([found.model for found in members.values()], trial, questions)
    before = Blend(weights=weights, seed=turn.seed).adopt([found.model for found in members.values()])
    named = {member: weights[2 * number : 2 * number + 2] for number, member in enumerate(members)}
    turn.chosen[name] = Chosen(named, goal_of(before, trial, questions), before)
    turn.models[name] = Blend(weights=weights, seed=turn.seed).adopt([turn.models[member] for member in members])
    cost.seconds += sum(turn.costs[member].seconds for member in members)
    cost.peak_mib = max(cost.peak_mib, *(turn.costs[member].peak_mib for member in members))
    turn.costs[name] = cost


def _row(name: str, kind: str, trial: Trial, turn: _Turn) -> Row:
    popularity = np.bincount(trial.train.item, minlength=trial.train.n_items).astype(np.float64)
    found = answers(turn.models[name], trial.test, filter_seen=trial.filter_seen)
    metrics = measured(found, trial.test, popularity)
    chosen, cost = turn.chosen[name], turn.costs[name]
    return Row(name, kind, turn.seed, metrics, cost.seconds, cost.peak_mib, chosen.goal, dict(chosen.settings))
