"""The models of an evaluation by name: how each is made, and what is tried on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from trainers.history_knn import HistoryKnn
from trainers.item_to_item import ItemKnn
from trainers.offline.baselines import HistoryPopular, MostPopular, Random
from trainers.recommender import Recommender
from trainers.sequential_rules import SequentialRules

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


_RECENCY = frozenset({"decay", "length"})
_DECAYS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def _next_item(*, of_sessions: bool) -> dict[str, Recipe]:
    """Return the models of items one after the other."""
    item_knn = {"measure": ("cosine", "tf_idf", "asymmetric"), "shrink": (0.0, 3.0, 10.0, 30.0), "decay": _DECAYS}
    rules = {
        "backward": (0.0, 0.1, 0.3, 0.6, 1.0),
        "damping": ((0.25, 0.0), (0.5, 0.0), (0.25, 0.25), (0.5, 0.25)),
        "window": (5, 20),
        "decay": _DECAYS,
    }
    near = {
        "decay": _DECAYS,
        "neighbours": (200, 500, 1500),
        "power": (1.0, 2.0, 3.0),
        "nearby": (0.9, 0.7, 0.5),
        "behind": (0.0, 0.3, 0.6),
        "idf": (0.5, 1.0),
        "rarity": (0.25, 0.5),
        "normalise": (0.25, 0.75),
        **({"half_life_days": (10.0, 30.0, 60.0)} if of_sessions else {}),
    }
    late = _RECENCY | {"neighbours", "power", "nearby", "behind", "idf", "rarity"}
    start = {"neighbours": 500, "decay": 0.7, "power": 1.0}
    return {
        "item-kNN": Recipe("model", ItemKnn, {"k": 200, "decay": 0.7}, item_knn, _RECENCY),
        "rules": Recipe("model", partial(SequentialRules, actions=()), {"k": 300, "decay": 0.6}, rules, _RECENCY),
        "session-kNN" if of_sessions else "user-kNN": Recipe("model", HistoryKnn, start, near, late),
    }


def _set_models() -> dict[str, Recipe]:
    """Return the models of sets, whose items have no order."""
    item_knn = {"measure": ("cosine", "tf_idf", "asymmetric"), "shrink": (0.0, 10.0, 50.0), "k": (50, 100, 400)}
    near = {
        "neighbours": (50, 100, 200, 400, 800),
        "power": (1.0, 2.0, 3.0, 4.0),
        "idf": (0.5, 1.0),
        "rarity": (-0.25, 0.25, 0.5),
        "normalise": (0.3, 0.7, 1.0),
    }
    late = frozenset({"neighbours", "power", "idf", "rarity"})
    return {
        "item-kNN": Recipe("model", ItemKnn, {"k": 200, "length": 10_000}, item_knn),
        "user-kNN": Recipe("model", HistoryKnn, {"length": 10_000, "neighbours": 300}, near, late),
    }


def recipes_of(protocol: str) -> dict[str, Recipe]:
    """Return the models that take part in a protocol, baselines first."""
    of_sessions = protocol == "sessions"
    baselines = {
        "random": Recipe("baseline", Random),
        "popular": Recipe("baseline", MostPopular),
        "session popular" if of_sessions else "personal popular": Recipe("baseline", HistoryPopular),
    }
    ordered = protocol in {"loo", "sessions"}
    return baselines | (_next_item(of_sessions=of_sessions) if ordered else _set_models())


def picked(recipes: Mapping[str, Recipe], names: Sequence[str]) -> dict[str, Recipe]:
    """Return the recipes of these names, all without one; ValueError names what there is."""
    for name in names:
        if name not in recipes:
            raise ValueError(f"there is no model `{name}`; give one or more of {', '.join(recipes)}")
    return {name: recipe for name, recipe in recipes.items() if not names or name in names}
