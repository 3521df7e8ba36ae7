"""What the ranker learns from: candidates the engine gathered at past moments, and what visitors did next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import core_rs
from trainers.dataset import ACTIONS, Dataset
from trainers.protocols import first_baskets
from trainers.ranker import Rows
from trainers.shop import Shop

LEARNABLE = ("purchase", "add_to_cart", "add_to_wishlist", "view", "click", "return", "dislike")
"""Actions that a ranker may predict, where they occur often enough."""

_BOUGHT_SHARE = 0.25
_OTHER_SHARE = 0.05
_PAUSE_MS = 30 * 60_000
_USUAL_LINES = 3


@dataclass(frozen=True)
class Outcomes:
    """What visitors did on their next visit after a moment.

    Attributes
    ----------
    visitors : NDArray[np.int64] of shape (n,)
        Visitors that did anything, ascending.
    pairs : list[NDArray[np.int64]]
        Visitor times the number of items, plus item, ascending; one array an action.
    shown : NDArray[np.int64]
        Pairs that impressions with a position tell of, ascending.
    positions : NDArray[np.int32]
        Best position of each of them, from 1.
    """

    visitors: NDArray[np.int64]
    pairs: list[NDArray[np.int64]]
    shown: NDArray[np.int64]
    positions: NDArray[np.int32]


def learnable_actions(dataset: Dataset, least: int = 500) -> tuple[str, ...]:
    """Return the actions with at least `least` rows, the dearest first."""
    return tuple(name for name in LEARNABLE if int((dataset.action == ACTIONS[name]).sum()) >= least)


def outcomes(dataset: Dataset, actions: tuple[str, ...], start_ms: int, end_ms: int) -> Outcomes:
    """Return what followed in [start_ms, end_ms): for each action, the items of the first visit with it.

    A visit ends with a pause of half an hour. Where visits usually have three items or more, shorter ones do not count.
    """
    after = dataset.since(start_ms).before(end_ms)
    pairs = []
    for action in actions:
        rows = after.of(action)
        visit = visits(rows)
        usual = int(np.median(np.bincount(visit))) if len(rows) else 1
        visitor, item = first_baskets(rows, visit, _USUAL_LINES if usual >= _USUAL_LINES else 1)
        pairs.append(visitor.astype(np.int64) * dataset.n_items + item)
    found = np.concatenate([np.zeros(0, np.int64), *pairs])
    return Outcomes(np.unique(found // dataset.n_items), pairs, *_best_positions(after))


def _best_positions(rows: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the pairs that were shown, ascending, and the best position of each.

    Impressions alone tell: a position that comes with a click would give the click away.
    """
    seen = rows.of("impression")
    seen = seen.where(seen.position > 0)
    pairs = seen.visitor.astype(np.int64) * seen.n_items + seen.item
    order = np.lexsort((seen.position, pairs))
    shown, first = np.unique(pairs[order], return_index=True)
    return shown, seen.position[order][first]


def visits(rows: Dataset) -> NDArray[np.int64]:
    """Return the number of the visit that each row belongs to, ascending."""
    if not len(rows):
        return np.zeros(0, np.int64)
    begins = (np.diff(rows.visitor.astype(np.int64)) != 0) | (np.diff(rows.time_ms) > _PAUSE_MS)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(begins)])


class Collector:
    """Asks the shop what it would show, and keeps a sample of the candidates.

    All candidates that an action followed are kept; of the others a share, each weighing the more.

    Parameters
    ----------
    dataset : Dataset
        Only what follows a moment is read, as labels.
    actions : tuple[str, ...]
        Columns of the labels.
    placement_ids : tuple[str, ...]
        Placements to learn from.
    seed : int
    """

    def __init__(
        self, dataset: Dataset, actions: tuple[str, ...], placement_ids: tuple[str, ...], *, seed: int = 0
    ) -> None:
        self.dataset = dataset
        self.actions = actions
        self.placement_ids = placement_ids
        self._rng = np.random.default_rng(seed)
        self._numbers = {item_id: number for number, item_id in enumerate(dataset.items)}
        self._bought = core_rs.feature_names().index("bought_baskets")

    def collect(self, shop: Shop, end_ms: int) -> Rows:
        """Return the sampled candidates of all visitors who came between now and `end_ms`."""
        followed = outcomes(self.dataset, self.actions, shop.now_ms, end_ms)
        empty = np.zeros((0, len(core_rs.feature_names())), np.float32)
        nothing = np.zeros((0, len(self.actions)), np.bool_)
        parts = [Rows(empty, nothing, np.zeros(0, np.float32), np.zeros(0, np.int32))]
        for visitor in followed.visitors.tolist():
            parts += [self._rows(shop, followed, visitor, placement_id) for placement_id in self.placement_ids]
        return Rows.concatenate(parts)

    def _rows(self, shop: Shop, followed: Outcomes, visitor: int, placement_id: str) -> Rows:
        plan = shop.plan(self.dataset.visitors[visitor], placement_id)
        items = np.array([self._numbers[item_id] for item_id in plan.item_ids], dtype=np.int64)
        pairs = visitor * self.dataset.n_items + items
        labels = np.stack([_among(pairs, wanted) for wanted in followed.pairs], axis=1)
        hit = labels.any(axis=1)
        share = np.where(plan.features[:, self._bought] > 0, _BOUGHT_SHARE, _OTHER_SHARE)
        kept = hit | (self._rng.random(len(items)) < share)
        weights = np.where(hit, 1.0, 1.0 / share)[kept].astype(np.float32)
        return Rows(plan.features[kept], labels[kept], weights, _positions(pairs[kept], followed))


def _positions(pairs: NDArray[np.int64], followed: Outcomes) -> NDArray[np.int32]:
    """Return the position at which each pair was shown, 0 where it was not."""
    positions = np.zeros(len(pairs), np.int32)
    known = _among(pairs, followed.shown)
    positions[known] = followed.positions[np.searchsorted(followed.shown, pairs[known])]
    return positions


def _among(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(ascending, values), max(len(ascending) - 1, 0))
    return ascending[place] == values if len(ascending) else np.zeros(len(values), np.bool_)
