"""Hyper-parameters by search on the validation part, never on the test."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainers.offline.measures import accuracy
from trainers.offline.questions import Questions, Trial
from trainers.offline.recipes import Recipe
from trainers.recommender import Recommender

SEARCHED, QUESTIONS = 3000, 10_000
"""Validation questions that a search asks for every setting, and that choose weights and models; drawn by lot."""


@dataclass(frozen=True)
class Chosen:
    """Outcome of a search.

    Attributes
    ----------
    settings : Mapping[str, object]
        Hyper-parameters of the best measure.
    goal : float
        The measure on validation.
    model : Recommender
        With these settings, fitted on the part before validation.
    """

    settings: Mapping[str, object]
    goal: float
    model: Recommender


def goal_of(model: Recommender, trial: Trial, questions: Questions) -> float:
    """Return the measure that the trial chooses by, of a fitted model on some of the validation questions."""
    return accuracy(model, questions, filter_seen=trial.filter_seen)[trial.goal]


def search(recipe: Recipe, trial: Trial, seed: int, tell: Callable[[float], None], *, tuned: bool = True) -> Chosen:
    """Return the best settings on validation; each hyper-parameter in turn takes the values of the recipe's grid.

    Without `tuned` the recipe's own settings are measured only.
    """
    questions = trial.validation.sample(SEARCHED)
    settings = dict(recipe.settings)
    model = recipe.make(**settings, seed=seed).fit(trial.fit_part)
    best = Chosen(settings, goal_of(model, trial, questions), model)
    steps = [(name, value) for name, values in recipe.grid.items() for value in values] if tuned else []
    for number, (name, value) in enumerate(steps):
        tell(number / len(steps))
        if best.settings.get(name) == value:
            continue
        settings = {**best.settings, name: value}
        if name in recipe.late:
            model = copy.copy(best.model)
            setattr(model, name, value)
        else:
            model = recipe.make(**settings, seed=seed).fit(trial.fit_part)
        if (goal := goal_of(model, trial, questions)) > best.goal:
            best = Chosen(settings, goal, model)
    tell(1.0)
    return Chosen(best.settings, goal_of(best.model, trial, trial.validation.sample(QUESTIONS)), best.model)
