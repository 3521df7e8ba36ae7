"""What visitors of like taste buy and a visitor has not bought yet."""

from collections.abc import Mapping
from typing import Any

from trainers.visitor_lists import VisitorLists


class UserToUser(VisitorLists):
    """Mean of the purchases of the nearest visitors, without what the visitor has bought.

    Every basket counts alike, however old.

    Parameters
    ----------
    neighbours : int
        Nearest visitors, by cosine, that have a say.
    length : int
        Items kept for each visitor.
    actions : tuple[str, ...]
        Event types that make a basket; all where it is empty.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = UserToUser(neighbours=2).fit(toy()).recommend(question("coffee"), k=2)
    >>> names(items)
    [['filters', 'milk']]
    """

    file = "user_to_user.safetensors"

    def __init__(self, *, neighbours: int = 100, length: int = 200, actions: tuple[str, ...] = ("purchase",)) -> None:
        self.neighbours = neighbours
        self.length = length
        self.actions = actions

    def decay(self) -> Mapping[str, Any]:
        """Return that baskets weigh alike."""
        return {"n_groups": 1, "within": 1.0, "across": 1.0}

    def choice(self) -> Mapping[str, Any]:
        """Return that the nearest visitors alone have a say."""
        return {"neighbours": self.neighbours, "alpha": 0.0, "length": self.length, "only_new": True}
