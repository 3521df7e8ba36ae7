"""The models of an evaluation by name: how each is made, and what is tried on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trainers.offline.baselines import HistoryPopular, MostPopular, Random
from trainers.recommender import Recommender

Kind = Literal["baseline", "model", "hybrid"]


@dataclass(frozen=True)
class Recipe:
    """How a model takes part.

    Attributes
    ----------
    kind : str
        `baseline`, `model` or `hybrid`.
    make : Callable[..., Recommender]
        Takes hyper-parameters and `seed` as keywords.
    settings : Mapping[str, object]
        Where the search begins.
    grid : Mapping[str, Sequence[object]]
        Values to try of each hyper-parameter, one hyper-parameter after the other.
    late : frozenset[str]
        Hyper-parameters that only `score` reads: a fitted model takes another value as it is.
    """

    kind: Kind
    make: Callable[..., Recommender]
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Mapping[str, Sequence[object]] = field(default_factory=dict)
    late: frozenset[str] = frozenset()

    def fixed(self, settings: Mapping[str, object]) -> "Recipe":
        """Return the recipe with these settings and nothing to try."""
        return replace(self, settings=settings, grid={})


def recipes_of(protocol: str) -> dict[str, Recipe]:
    """Return the models that take part in a protocol, baselines first."""
    history = "session popular" if protocol == "sessions" else "personal popular"
    return {
        "random": Recipe("baseline", Random),
        "popular": Recipe("baseline", MostPopular),
        history: Recipe("baseline", HistoryPopular),
    }


def picked(recipes: Mapping[str, Recipe], names: Sequence[str]) -> dict[str, Recipe]:
    """Return the recipes of these names, all without one; ValueError names what there is."""
    for name in names:
        if name not in recipes:
            raise ValueError(f"there is no model `{name}`; give one or more of {', '.join(recipes)}")
    return {name: recipe for name, recipe in recipes.items() if not names or name in names}
