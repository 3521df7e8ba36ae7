"""The models of an evaluation by name: how each is made, and what is tried on validation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from typing import Literal

from trainers.als import Als
from trainers.base import OptionError
from trainers.blend import Blend
from trainers.content import Content
from trainers.ease import Ease
from trainers.graph_filter import GraphFilter
from trainers.gru4rec import Gru4Rec
from trainers.item_to_item import ItemKnn
from trainers.offline.baselines import HistoryPopular, MostPopular, Random
from trainers.offline.questions import Split
from trainers.recommender import Recommender
from trainers.sasrec import SasRec
from trainers.sequence.settings import Training
from trainers.sequence_knn import SequenceKnn
from trainers.sequential_rules import SequentialRules
from trainers.tifu_knn import TifuKnn
from trainers.trend import Trend
from trainers.user_to_user import UserToUser

SEQUENCE_MODELS = ("transformer", "recurrent")
"""Names of the models that need PyTorch."""

_ELSEWHERE = {
    "content": "it needs --attributes",
    "TIFU-KNN": "it is for `baskets` of visitors",
    "user-to-user": "it is for `baskets` of visitors",
    "session-kNN": "it is for `sessions`, elsewhere user-kNN",
    "user-kNN": "in `sessions` it is session-kNN",
    "sequential-rules": "it is for `loo` and `sessions`",
    "spectral": "it is for `sets` and `baskets`",
    "iALS": "it is for `sets` and `baskets`",
} | dict.fromkeys(SEQUENCE_MODELS, "it is for `loo` and `sessions`")
"""Models that other protocols or options have."""

Kind = Literal["baseline", "model", "hybrid"]
HYBRID: Kind = "hybrid"
"""Kind and name of the blend of all other models."""


def _never(_: Split) -> bool:
    return False


def _always(_: Split) -> bool:
    return True


def _ties(split: Split) -> bool:
    return split.has_ties


@dataclass(frozen=True)
class Recipe:
    """How a model takes part.

    Attributes
    ----------
    kind : str
        `baseline`, `model` or `hybrid`.
    make : Callable[..., Recommender]
        Takes hyper-parameters as keywords, and a `seed` where it draws anything.
    settings : Mapping[str, object]
        Where the search begins.
    grid : Mapping[str, Sequence[object]]
        Values to try of each hyper-parameter, one hyper-parameter after the other.
    score_only : frozenset[str]
        Hyper-parameters that only `score` reads: a fitted model takes another value as it is.
    random : Callable[[Split], bool]
        Whether what the model learns depends on the seed; if not, one fit serves all seeds.
    """

    kind: Kind
    make: Callable[..., Recommender]
    settings: Mapping[str, object] = field(default_factory=dict)
    grid: Mapping[str, Sequence[object]] = field(default_factory=dict)
    score_only: frozenset[str] = frozenset()
    random: Callable[[Split], bool] = _never

    def model(self, settings: Mapping[str, object], seed: int) -> Recommender:
        """Return the model with these settings, not fitted yet, and with `seed` where it takes one."""
        drawn = {"seed": seed} if "seed" in signature(self.make).parameters else {}
        return self.make(**settings, **drawn)

    def fixed(self, settings: Mapping[str, object]) -> "Recipe":
        """Return the recipe with these settings and nothing to try."""
        return replace(self, settings=settings, grid={})


_EASE_MIB = 1000
"""Memory of the dense form of EASE, which is slow before it is large: about 9,000 items."""
_RARE = {"idf": 0.5, "target_idf": 0.25, "normalise": 0.7}
_RECENCY = frozenset({"decay", "window"})


def _next_item() -> dict[str, Recipe]:
    """Return the models of items one after the other."""
    item_knn = {"decay": (0.4, 0.8), "measure": ("tf_idf",), "shrink": (10.0, 100.0)}
    rules = {"backward": (0.0, 0.3, 1.0), "damping": ((0.25, 0.0), (0.5, 0.25)), "decay": (0.4, 0.7)}
    settings = {"k": 300, "backward": 0.1, "damping": (0.5, 0.0), "decay": 0.5}
    return {
        "item-kNN": Recipe("model", ItemKnn, {"k": 200, "decay": 0.6, "shrink": 30.0}, item_knn, _RECENCY),
        "sequential-rules": Recipe("model", partial(SequentialRules, actions=()), settings, rules, _RECENCY, _ties),
    }


def _sequence(*, of_sessions: bool) -> dict[str, Recipe]:
    """Return the models of `SEQUENCE_MODELS`; what they learn by was chosen on validation of public data."""
    training = Training(window=20, negatives=1024, batch_targets=2048) if of_sessions else Training()
    dropout = 0.3 if of_sessions else 0.4
    makers: tuple[Callable[..., Recommender], ...] = (SasRec, Gru4Rec)
    settings = {"dropout": dropout, "training": training}
    named = zip(SEQUENCE_MODELS, makers, strict=True)
    return {name: Recipe("model", make, settings, random=_always) for name, make in named}


def _near(*, of_sessions: bool) -> Recipe:
    """Return the nearest visitors, or sessions, of sequences."""
    grid: dict[str, Sequence[object]] = {
        "decay": (0.4, 0.65, 0.8),
        "nearby": (0.9, 0.5),
        "behind": (0.1, 0.6, 1.0),
        "power": (0.6, 1.5),
        "target_idf": (0.0, 0.4),
        "normalise": (0.1, 0.5),
    }
    if of_sessions:
        grid |= {"half_life_days": (10.0, 30.0, 90.0)}
    score_only = _RECENCY | {"k", "power", "nearby", "behind", "idf", "target_idf"}
    settings = {"k": 500, "decay": 0.5, "nearby": 0.7, "behind": 0.3, "idf": 1.0, "target_idf": 0.25}
    return Recipe("model", SequenceKnn, settings | {"normalise": 0.25}, grid, score_only)


def _set_models() -> dict[str, Recipe]:
    """Return the models of sets, whose items have no order."""
    item_knn = {"measure": ("cosine", "asymmetric"), "k": (50, 200, 2000), "shrink": (0.0, 30.0, 100.0)}
    near = {
        "power": (1.0, 3.0, 4.0),
        "k": (100, 1000),
        "idf": (0.0, 1.0),
        "target_idf": (0.0, 0.5),
        "normalise": (0.5, 0.9),
    }
    score_only = frozenset({"k", "power", "idf", "target_idf"})
    ease = {"regularization": (100.0, 200.0, 1000.0)}
    waves = {"n_factors": (16, 64, 128), "low_pass": (0.0, 0.05, 0.2, 0.5), "damping": (0.4,)}
    als = {"regularization": (0.003, 0.03), "unobserved": (0.1, 1.0), "n_factors": (64, 256)}
    return {
        "item-kNN": Recipe("model", ItemKnn, {"measure": "tf_idf", "k": 500, "window": 10_000}, item_knn),
        "user-kNN": Recipe("model", SequenceKnn, {"window": 10_000, "k": 300, "power": 2.0} | _RARE, near, score_only),
        "spectral": Recipe("model", GraphFilter, {}, waves, frozenset({"low_pass"})),
        "EASE": Recipe("model", Ease, {"regularization": 500.0, "memory_mib": _EASE_MIB}, ease),
        "iALS": Recipe("model", Als, {"unobserved": 0.3, "n_iterations": 8}, als, random=_always),
    }


def _visitor_lists() -> dict[str, Recipe]:
    """Return the models of the baskets of a visitor, which bundles hold as lists."""
    tifu = {"alpha": (0.5, 0.9), "k": (100, 900), "within": (0.97,), "n_groups": (1,)}
    score_only = frozenset({"alpha", "k"})
    return {
        "TIFU-KNN": Recipe("model", partial(TifuKnn, actions=()), {"alpha": 0.7}, tifu, score_only),
        "user-to-user": Recipe("model", partial(UserToUser, actions=()), {}, {"k": (30, 300)}, score_only),
    }


def recipes_of(protocol: str, *, with_content: bool = False, of_visitors: bool = True) -> dict[str, Recipe]:
    """Return the models that take part in a protocol: baselines, models, the hybrid of all.

    Parameters
    ----------
    protocol : str
        `loo`, `sessions`, `sets` or `baskets`.
    with_content : bool
        Whether something is known of items, which the model of content needs.
    of_visitors : bool
        Whether baskets have visitors.
    """
    of_sessions = protocol == "sessions"
    recipes = {
        "random": Recipe("baseline", Random, random=_always),
        "popular": Recipe("baseline", MostPopular),
        "session popular" if of_sessions else "personal popular": Recipe("baseline", HistoryPopular),
    }
    seasons = ((), ("hour", "weekday", "week"))
    recipes["trend"] = Recipe("model", Trend, {"seasons": ()}, {"half_life_days": (1.0, 60.0), "seasons": seasons})
    if protocol in {"loo", "sessions"}:
        recipes |= _next_item() | _sequence(of_sessions=of_sessions)
        recipes |= {"session-kNN" if of_sessions else "user-kNN": _near(of_sessions=of_sessions)}
    else:
        recipes |= _set_models()
    if protocol == "baskets" and of_visitors:
        recipes |= _visitor_lists()
    if protocol == "loo":
        settings = {"regularization": 30.0, "block": 100, "decay": 0.6, "memory_mib": _EASE_MIB}
        recipes["EASE"] = Recipe("model", Ease, settings, {"decay": (0.4, 0.8)}, frozenset({"decay"}))
    if with_content:
        grid = {"idf": (1.0, 2.0, 3.0), "normalise": (0.5,), "popularity": (0.5, 1.5), "decay": (0.4, 0.8)}
        recipes["content"] = Recipe("model", Content, {}, grid, _RECENCY | {"popularity"})
    return recipes | {HYBRID: Recipe(HYBRID, Blend)}


def picked(recipes: Mapping[str, Recipe], names: Sequence[str]) -> dict[str, Recipe]:
    """Return the recipes of these names, all without one; the hybrid alone blends all.

    Raises
    ------
    OptionError
        When a name is unknown; the text lists those there are.
    """
    for name in names:
        if name not in recipes:
            where = f" here, {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            raise OptionError(f"there is no model `{name}`{where}; give one or more of {', '.join(recipes)}")
    wanted = set(names) - {HYBRID} or set(recipes)
    chosen = {name: recipe for name, recipe in recipes.items() if name in wanted}
    return chosen if names and HYBRID not in names else {**chosen, HYBRID: recipes[HYBRID]}
