"""A whole evaluation: choose on validation, fit, ask the test, for every model and seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from trainers.offline.cost import Cost, counted
from trainers.offline.measures import answers, measured
from trainers.offline.questions import Trial
from trainers.offline.recipes import Recipe
from trainers.offline.tuning import Chosen, search
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
        Of the fit that the test measured.
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


def run(trial: Trial, recipes: dict[str, Recipe], seeds: Sequence[int], tell: Tell, *, tuned: bool = True) -> Outcome:
    """Return the rows of every recipe and seed.

    Settings are searched with the first seed and kept for the others.
    """
    rows: list[Row] = []
    settings: dict[str, Recipe] = {}
    for seed in seeds:
        for name, recipe in recipes.items():
            label = f"{name}, seed {seed}"
            chosen = search(settings.get(name, recipe), trial, seed, lambda share: tell(label, share), tuned=tuned)  # noqa: B023
            settings[name] = recipe.fixed(chosen.settings)
            model, cost = _refitted(recipe, chosen, trial, seed)
            rows.append(_row(name, recipe.kind, seed, chosen, cost, _metrics(model, trial)))
    return Outcome(trial, rows)


def _refitted(recipe: Recipe, chosen: Chosen, trial: Trial, seed: int) -> tuple[Recommender, Cost]:
    with counted() as cost:
        model = recipe.make(**chosen.settings, seed=seed).fit(trial.train)
    return model, cost


def _metrics(model: Recommender, trial: Trial) -> dict[str, float]:
    popularity = np.bincount(trial.train.item, minlength=trial.train.n_items).astype(np.float64)
    return measured(answers(model, trial.test, filter_seen=trial.filter_seen), trial.test, popularity)


def _row(name: str, kind: str, seed: int, chosen: Chosen, cost: Cost, metrics: dict[str, float]) -> Row:  # noqa: PLR0913, PLR0917
    return Row(name, kind, seed, metrics, cost.seconds, cost.peak_mib, chosen.goal, dict(chosen.settings))
