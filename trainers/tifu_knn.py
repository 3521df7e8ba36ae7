"""What each visitor buys next: their own rhythm, blended with that of the nearest visitors."""

from collections.abc import Mapping
from typing import Any

from trainers.visitor_lists import VisitorLists


class TifuKnn(VisitorLists):
    """TIFU-KNN: item frequency over baskets, decayed by age, and the mean of the nearest visitors.

    The nearest visitors are those of the highest cosine.

    Parameters
    ----------
    n_groups : int
        m: groups that a visitor's baskets are cut into, in order of time.
    within, across : float
        r_b and r_g: weight of a basket, or group, relative to the next one; in (0, 1].
    k : int
        Nearest visitors whose mean counts.
    alpha : float
        Share of the visitor's own frequencies, 0 to 1.
    n_items_kept : int
        Items kept for each visitor.
    actions : tuple[str, ...]
        Event types that make a basket; all where it is empty.

    References
    ----------
    Hu, He, Gao and Zhang 2020, Modeling Personalized Item Frequency Information for Next-basket Recommendation.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = TifuKnn(k=2).fit(toy()).recommend(question("coffee"), k=3)
    >>> names(items)
    [['coffee', 'filters', 'milk']]
    """

    file = "next_basket.safetensors"

    def __init__(  # noqa: PLR0913 - the hyper-parameters of the paper
        self,
        *,
        n_groups: int = 7,
        within: float = 0.9,
        across: float = 0.7,
        k: int = 300,
        alpha: float = 0.8,
        n_items_kept: int = 200,
        actions: tuple[str, ...] = ("purchase",),
    ) -> None:
        self.n_groups = n_groups
        self.within = within
        self.across = across
        self.k = k
        self.alpha = alpha
        self.n_items_kept = n_items_kept
        self.actions = actions

    def basket_options(self) -> Mapping[str, Any]:
        """Return how baskets of a visitor weigh."""
        return {"n_groups": self.n_groups, "within": self.within, "across": self.across}

    def blend_options(self) -> Mapping[str, Any]:
        """Return how the nearest visitors count."""
        return {"neighbours": self.k, "alpha": self.alpha, "length": self.n_items_kept, "only_new": False}
