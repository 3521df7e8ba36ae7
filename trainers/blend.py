"""One score from several recommenders: a linear blend."""

import copy
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainers.base import Progress, no_progress
from trainers.dataset import Dataset
from trainers.item_to_item import ItemKnn
from trainers.recommender import Queries, Recommender
from trainers.sequential_rules import SequentialRules

FORMS = 2
"""Columns that `forms` makes of one score."""

_STEEP = 99.0
"""How steep the logarithm begins: a hundredth of the best score gives .15 of it, a tenth .52."""


class Blend(Recommender):
    """Weighted sum of the members' scores, each as its share of the history's best, and the logarithm of that.

    Parameters
    ----------
    members : tuple[Recommender, ...]
        Models to blend; `fit` learns copies of them.
    weights : tuple[float, ...]
        Weight of share and logarithm of each member, one after the other; empty: 1 each. `trainers.offline.weights`
        chooses them on validation.

    Attributes
    ----------
    members_ : list[Recommender]
        Fitted members.

    References
    ----------
    Burke 2002, Hybrid recommender systems: survey and experiments, the weighted hybrid.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Blend().fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    members_: list[Recommender]

    def __init__(
        self,
        *,
        members: tuple[Recommender, ...] = (ItemKnn(), SequentialRules()),
        weights: tuple[float, ...] = (),
    ) -> None:
        self.members = members
        self.weights = weights

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Fit every member."""
        members = []
        for number, member in enumerate(self.members):
            members.append(copy.deepcopy(member).fit(dataset))
            progress((number + 1) / len(self.members))
        return self.adopt(members)

    def adopt(self, members: Sequence[Recommender]) -> Self:
        """Take members that are fitted already, and return the blend.

        Raises
        ------
        ValueError
            When there are no members, or another number of weights than `FORMS` for each.
        """
        if not members or len(self.weights) not in {0, FORMS * len(members)}:
            raise ValueError(
                f"{len(members)} members need {FORMS * len(members)} weights; {len(self.weights)} are given"
            )
        self.members_ = list(members)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the weighted sum; an item that a member never ranks gets nothing from it."""
        members = self.fitted("members_")
        weights = self.weights or (1.0,) * (FORMS * len(members))
        total = np.zeros((len(queries), queries.n_items), np.float32)
        for number, member in enumerate(members):
            own = weights[FORMS * number : FORMS * (number + 1)]
            if any(own):
                total += sum(weight * form for weight, form in zip(own, forms(member.score(queries)), strict=True))
        return total


def forms(scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return each score as its share of the row's best, from 0 to 1, and the logarithm of that, from 0 to 1.

    Scores below zero count as 0; a row without a score above is all 0.
    """
    best = np.maximum(scores.max(axis=1, keepdims=True, initial=0), np.float32(1e-12))
    share = np.clip(scores, 0, None) / best
    logarithm = np.log1p(_STEEP * share, where=share > 0, out=np.zeros_like(share))
    return share, logarithm / np.float32(np.log1p(_STEEP))
