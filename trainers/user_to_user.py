"""What visitors of like taste buy and a visitor has not bought yet."""

from collections.abc import Mapping
from typing import Any

from trainers.visitor_lists import VisitorLists


class UserToUser(VisitorLists):
    """Mean of the purchases of the nearest visitors, without what the visitor has bought.

    Every basket counts alike, however old.

    Parameters
    ----------
    k : int
        Nearest visitors, by cosine, whose mean counts.
    n_items_kept : int
        Items kept for each visitor.
    actions : tuple[str, ...]
        Event types that make a basket; all where it is empty.

    References
    ----------
    Resnick, Iacovou, Suchak, Bergstrom and Riedl 1994, GroupLens: an open architecture for collaborative filtering of
    netnews.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = UserToUser(k=2).fit(toy()).recommend(question("coffee"), k=2)
    >>> names(items)
    [['filters', 'milk']]
    """

    file = "user_to_user.safetensors"

    def __init__(self, *, k: int = 100, n_items_kept: int = 200, actions: tuple[str, ...] = ("purchase",)) -> None:
        self.k = k
        self.n_items_kept = n_items_kept
        self.actions = actions

    def basket_options(self) -> Mapping[str, Any]:
        """Return that baskets weigh alike."""
        return {"n_groups": 1, "within": 1.0, "across": 1.0}

    def blend_options(self) -> Mapping[str, Any]:
        """Return that the nearest visitors alone count."""
        return {"neighbours": self.k, "alpha": 0.0, "length": self.n_items_kept, "only_new": True}
