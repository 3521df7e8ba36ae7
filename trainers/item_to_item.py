"""Neighbour lists of items: what visitors also viewed, also bought, and bought together."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import core_rs
from trainers.base import Array, Progress, Trainer, no_progress, rows_of
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender

Measure = Literal["cosine", "asymmetric", "tf_idf", "lift", "jaccard", "conditional"]


class NeighbourLists(Recommender):
    """Recommender by one neighbour list an item; a history scores the sum of its items' lists.

    Attributes
    ----------
    offsets_ : NDArray[np.uint32] of shape (n_items + 1,)
        Item `i` has the entries `offsets_[i]` to `offsets_[i + 1]`.
    neighbours_ : NDArray[np.uint32] of shape (n_entries,)
        Positions in `Dataset.items`, best first; ties break by position.
    scores_ : NDArray[np.float32] of shape (n_entries,)
        Positive, descending in each list.
    """

    actions: tuple[str, ...]
    decay: float
    window: int
    offsets_: NDArray[np.uint32]
    neighbours_: NDArray[np.uint32]
    scores_: NDArray[np.float32]

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the sum of the list scores over the last `window` steps of the history, each step back times `decay`.

        Items in no list score 0.
        """
        shape = (queries.n_items, queries.n_items)
        lists = sparse.csr_matrix((self.fitted("scores_"), self.neighbours_, self.offsets_), shape=shape)
        return np.asarray((queries.matrix(queries.recency(self.decay, self.window)) @ lists).toarray(), np.float32)

    def keep(self, lists: tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]]) -> None:
        """Set the fitted attributes."""
        offsets, self.neighbours_, self.scores_ = lists
        self.offsets_ = offsets.astype(np.uint32)


class ItemKnn(NeighbourLists):
    """Items that the same visitors met, whatever they did with them; subclasses count some event types, or baskets.

    Parameters
    ----------
    measure : str
        How alike two items are: `cosine`, `asymmetric`, `tf_idf`, `lift`, `jaccard` or `conditional`.
    k : int
        Neighbours of each item.
    shrink : float
        Added to the measure's denominator, in rows, so that pairs with little evidence sink.
    alpha : float
        Share of the item itself, 0 to 1, in the denominator of `asymmetric`; its neighbour has the rest.
    decay : float
        Weight of a step of the history relative to the next.
    window : int
        Steps of the history that count, newest first.

    References
    ----------
    Sarwar, Karypis, Konstan and Riedl 2001, Item-based collaborative filtering recommendation algorithms.
    Aiolli 2013, Efficient top-n recommendation for very large scale binary rated datasets (asymmetric cosine).

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = ItemKnn(shrink=0.0).fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    actions: tuple[str, ...] = ()
    by: ClassVar[Literal["visitor", "basket"]] = "visitor"

    def __init__(  # noqa: PLR0913 - keyword hyper-parameters
        self,
        *,
        measure: Measure = "cosine",
        k: int = 50,
        shrink: float = 10.0,
        alpha: float = 0.5,
        decay: float = 0.8,
        window: int = 50,
    ) -> None:
        self.measure = measure
        self.k = k
        self.shrink = shrink
        self.alpha = alpha
        self.decay = decay
        self.window = window

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count common visitors or baskets of all pairs of items. O(sum over those of items²)."""
        rows = rows_of(dataset, *self.actions)
        of = rows.visitor if self.by == "visitor" else rows.basket
        self.keep(
            core_rs.item_neighbours(
                of,
                rows.item,
                (int(of.max()) + 1, dataset.n_items),
                measure=self.measure,
                k=self.k,
                shrink=self.shrink,
                alpha=self.alpha,
            )
        )
        progress(1.0)
        return self


class NeighbourFile(Trainer):
    """Trainer of neighbour lists that a bundle holds as one file."""

    file: ClassVar[str]

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return offsets, neighbours and scores of the one file."""
        names = ("offsets", "neighbours", "scores")
        return {self.file: {name: self.fitted(f"{name}_") for name in names}}


class AlsoViewed(ItemKnn, NeighbourFile):
    """Items that the same visitors clicked or opened.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = AlsoViewed(shrink=0.0).fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    file = "also_viewed.safetensors"
    actions = ("click", "view")


class AlsoBought(ItemKnn, NeighbourFile):
    """Items that the same visitors bought, whenever.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = AlsoBought(shrink=0.0).fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    file = "also_bought.safetensors"
    actions = ("purchase",)


class BoughtTogether(ItemKnn, NeighbourFile):
    """Items of the same orders.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = BoughtTogether(shrink=0.0).fit(toy()).recommend(question("coffee"), k=2)
    >>> names(items)
    [['filters', 'milk']]
    """

    file = "bought_together.safetensors"
    actions = ("purchase",)
    by = "basket"
