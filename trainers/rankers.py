"""The kinds of rankers by name."""

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainers.network_ranker import NetworkRanker
from trainers.ranker import Ranker
from trainers.tree_ranker import TreeRanker


class RankerKind(StrEnum):
    """What a ranker is made of."""

    TREES = "trees"
    NETWORK = "network"


RANKERS: dict[RankerKind, Callable[..., Ranker]] = {
    RankerKind.TREES: TreeRanker,
    RankerKind.NETWORK: NetworkRanker,
}
"""How each kind is made, of `seed` and `without`."""


class Predictor(Protocol):
    """What foretells actions from the features of candidates: a `Ranker`, or the graph of a bundle."""

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the actions of every row, shape (n, h)."""
        ...
