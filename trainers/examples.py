"""What the ranker learns from: candidates the engine gathered at past moments, and what visitors did next."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.dataset import ACTIONS, Dataset
from trainers.protocols import first_baskets
from trainers.ranker import Rows
from trainers.shop import HOME, Shop

LEARNABLE = ("purchase", "add_to_cart", "add_to_wishlist", "view", "click", "return", "dislike")
"""Actions that a ranker may predict, where they occur."""

_PAUSE_MS = 30 * 60_000
_USUAL_LINES = 3


@dataclass(frozen=True)
class Outcomes:
    """What visitors did on their next visit after a moment.

    Attributes
    ----------
    visitors : NDArray[np.uint32] of shape (n,)
        Visitors that did anything.
    pairs : list[NDArray[np.int64]]
        Visitor times the number of items, plus item; one sorted array an action.
    """

    visitors: NDArray[np.uint32]
    pairs: list[NDArray[np.int64]]


def outcomes(dataset: Dataset, actions: tuple[str, ...], start_ms: int, end_ms: int) -> Outcomes:
    """Return what followed in [start_ms, end_ms), for each action on the first visit with it.

    A visit ends with a pause of half an hour. Where visits usually have three items or more, shorter ones are no visit.
    """
    after = dataset.since(start_ms).before(end_ms)
    pairs = []
    for action in actions:
        rows = after.of(action)
        visit = _visits(rows)
        usual = int(np.median(np.bincount(visit))) if len(rows) else 1
        visitor, item = first_baskets(rows, visit, _USUAL_LINES if usual >= _USUAL_LINES else 1)
        pairs.append(visitor.astype(np.int64) * dataset.n_items + item)
    found = np.concatenate(pairs) if pairs else np.zeros(0, np.int64)
    return Outcomes(np.unique(found // max(dataset.n_items, 1)).astype(np.uint32), pairs)


def learnable_actions(dataset: Dataset, least: int = 500) -> tuple[str, ...]:
    """Return the actions with at least `least` rows, the dearest first."""
    return tuple(name for name in LEARNABLE if int((dataset.action == ACTIONS[name]).sum()) >= least)


class Collector:
    """Asks the shop what it would show, and keeps a sample of the candidates.

    All candidates that an action followed are kept; of the others a share, which weighs the more.

    Parameters
    ----------
    dataset : Dataset
        Events of all time; only what follows a moment is read as its label.
    actions : tuple[str, ...]
        Columns of the labels.
    shares : tuple[float, float]
        Share kept of candidates without action: of those the visitor bought before, of the others.
    seed : int
    """

    def __init__(
        self,
        dataset: Dataset,
        actions: tuple[str, ...],
        *,
        bought_column: int,
        shares: tuple[float, float] = (0.25, 0.05),
        seed: int = 0,
    ) -> None:
        self.dataset = dataset
        self.actions = actions
        self.bought_column = bought_column
        self.shares = shares
        self._rng = np.random.default_rng(seed)
        self._numbers = {item_id: number for number, item_id in enumerate(dataset.items)}

    def collect(self, shop: Shop, end_ms: int, page_size: int = 20) -> Rows:
        """Return the sampled candidates of all visitors who came between now and `end_ms`."""
        followed = outcomes(self.dataset, self.actions, shop.now_ms, end_ms)
        parts = [self._rows(shop, followed, int(visitor), page_size) for visitor in followed.visitors]
        return Rows.concatenate([part for part in parts if part is not None])

    def _rows(self, shop: Shop, followed: Outcomes, visitor: int, page_size: int) -> Rows | None:
        plan = shop.plan(self.dataset.visitors[visitor], HOME, page_size)
        if not plan.item_ids:
            return None
        items = np.array([self._numbers[item_id] for item_id in plan.item_ids], dtype=np.int64)
        pairs = visitor * self.dataset.n_items + items
        labels = np.stack([np.isin(pairs, wanted) for wanted in followed.pairs], axis=1)
        hit = labels.any(axis=1)
        share = np.where(plan.features[:, self.bought_column] > 0, *self.shares)
        kept = hit | (self._rng.random(len(items)) < share)
        weights = np.where(hit, 1.0, 1.0 / share)[kept].astype(np.float32)
        return Rows(plan.features[kept], labels[kept], weights)
