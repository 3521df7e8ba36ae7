"""Hyper-parameters by search on the validation part, never on the test."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainers.offline.measures import accuracy
from trainers.offline.questions import Fold, Split
from trainers.offline.recipes import Recipe
from trainers.recommender import Recommender

SEARCHED, QUESTIONS = 3000, 10_000
"""Validation questions that a search asks for every setting, and that choose weights and models; drawn at random."""


@dataclass(frozen=True)
class Chosen:
    """Outcome of a search.

    Attributes
    ----------
    settings : Mapping[str, object]
        Hyper-parameters of the best measure.
    goal : float
        The measure on validation.
    models : tuple[Recommender, ...]
        One for each fold, with these settings, fitted on what is before its questions.
    """

    settings: Mapping[str, object]
    goal: float
    models: tuple[Recommender, ...]


def sampled(split: Split, count: int) -> tuple[Fold, ...]:
    """Return the folds with `count` questions in all, at most."""
    share = count // len(split.folds)
    return tuple(fold._replace(questions=fold.questions.sample(share)) for fold in split.folds)


def goal_of(models: Sequence[Recommender], split: Split, count: int = QUESTIONS) -> float:
    """Return the measure that the split chooses by, the mean over the folds of what their models reach."""
    pairs = zip(models, sampled(split, count), strict=True)
    reached = [accuracy(model, fold.questions, filter_seen=split.filter_seen)[split.goal] for model, fold in pairs]
    return float(np.mean(reached))


def search(recipe: Recipe, split: Split, seed: int, tell: Callable[[float], None], *, tuned: bool = True) -> Chosen:
    """Return the best settings on validation; each hyper-parameter in turn takes the values of the recipe's grid.

    Parameters
    ----------
    recipe : Recipe
    split : Split
        Its folds are learnt from and asked, never its test.
    seed : int
        For a model that draws anything.
    tell : Callable[[float], None]
        Called with the share of the search that is done.
    tuned : bool
        Whether to search; without it the recipe's own settings are measured only.
    """
    settings = dict(recipe.settings)
    models = _fitted(recipe, settings, split, seed)
    best = Chosen(settings, goal_of(models, split, SEARCHED), models)
    steps = [(name, value) for name, values in recipe.grid.items() for value in values] if tuned else []
    for number, (name, value) in enumerate(steps):
        tell(number / len(steps))
        if best.settings.get(name) == value:
            continue
        settings = {**best.settings, name: value}
        if name in recipe.score_only:
            models = tuple(map(copy.copy, best.models))
            for model in models:
                setattr(model, name, value)
        else:
            models = _fitted(recipe, settings, split, seed)
        if (goal := goal_of(models, split, SEARCHED)) > best.goal:
            best = Chosen(settings, goal, models)
    tell(1.0)
    return Chosen(best.settings, goal_of(best.models, split), best.models)


def _fitted(recipe: Recipe, settings: Mapping[str, object], split: Split, seed: int) -> tuple[Recommender, ...]:
    return tuple(recipe.model(settings, seed).fit(fold.train) for fold in split.folds)
