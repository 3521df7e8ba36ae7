"""What the ranker learns from: candidates the engine gathered at past moments, and what visitors did next."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

import core_rs
from shopkeeper.v1.common_pb2 import Context
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
_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class VisitOutcome:
    """What a visitor did on one visit after a moment, and what there was to see up to then.

    Attributes
    ----------
    visitor : int
    asked : NDArray[np.bool_] of shape (h,)
        Actions that the visit answers for; another visit may answer for the others.
    followed : list[NDArray[np.int64]]
        Items of each action, ascending.
    shown : NDArray[np.int64]
        Items that impressions with a position tell of, ascending.
    positions : NDArray[np.int32]
        Best position of each of them, from 1.
    device, campaign : int
        Of the first row of the visit, as in `Dataset`: what a request knows of the visit before it answers.
    """

    visitor: int
    asked: NDArray[np.bool_]
    followed: list[NDArray[np.int64]]
    shown: NDArray[np.int64]
    positions: NDArray[np.int32]
    device: int = 0
    campaign: int = 0


def learnable_actions(dataset: Dataset, least: int = 500) -> tuple[str, ...]:
    """Return the actions with at least `least` rows, the dearest first."""
    return tuple(name for name in LEARNABLE if int((dataset.action == ACTIONS[name]).sum()) >= least)


def outcomes(dataset: Dataset, actions: tuple[str, ...], start_ms: int, end_ms: int) -> list[VisitOutcome]:
    """Return what followed in [start_ms, end_ms): the first visit of each visitor with each action, in order of time.

    A visit ends with a pause of half an hour. Where visits usually have three items or more, shorter ones do not count.
    The first of these visits answers for the actions that the visitor never took, too.
    """
    after = dataset.since(start_ms).before(end_ms)
    visit = visits(after)
    of_actions = [_first_visits(after, visit, ACTIONS[name]) for name in actions]
    found = []
    for visitor in sorted(set().union(*of_actions)):
        taken = [of_action.get(visitor) for of_action in of_actions]
        first = min(answer[0] for answer in taken if answer)
        answers = [answer or (first, _NOTHING) for answer in taken]
        for number in sorted({number for number, _ in answers}):
            asked = np.array([of_visit == number for of_visit, _ in answers])
            followed = [items if of_visit == number else _NOTHING for of_visit, items in answers]
            begin, end = np.searchsorted(visit, [number, number + 1]).tolist()
            kinds = [ACTIONS[name] for name, items in zip(actions, followed, strict=True) if len(items)]
            acted = begin + np.flatnonzero(np.isin(after.action[begin:end], kinds))
            shown = _best_positions(after, visitor, acted)
            found.append(
                VisitOutcome(visitor, asked, followed, *shown, int(after.device[begin]), int(after.campaign[begin]))
            )
    return found


def _first_visits(rows: Dataset, visit: NDArray[np.int64], action: int) -> dict[int, tuple[int, NDArray[np.int64]]]:
    """Return the number and the items of the first visit, large enough, on which each visitor took an action."""
    of_action = rows.action == action
    numbers = visit[of_action]
    _, sizes = np.unique(numbers, return_counts=True)
    usual = int(np.median(sizes)) if len(sizes) else 1
    least = _USUAL_LINES if usual >= _USUAL_LINES else 1
    visitor, number, item = first_baskets(rows.where(of_action), numbers, least)
    visitors, starts = np.unique(visitor, return_index=True)
    items = np.split(item.astype(np.int64), starts[1:])
    return {who: (int(number[start]), of) for who, start, of in zip(visitors.tolist(), starts, items, strict=False)}


def _best_positions(
    rows: Dataset, visitor: int, acted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the items that a visitor was shown before acting, ascending, and the best position of each.

    What is shown later may be shown because of what followed: an item counts up to its own first row of `acted`, which
    numbers in order of time what the visitor did on the visit, and any other item up to the last of these. Impressions
    alone tell: a position that comes with a click would give the click away.
    """
    begin, end = np.searchsorted(rows.visitor, [visitor, visitor + 1])
    item, position = rows.item[begin:end].astype(np.int64), rows.position[begin:end]
    items, first = np.unique(rows.item[acted].astype(np.int64), return_index=True)
    until_ms = np.full(len(item), rows.time_ms[acted[-1]])
    known = _among(item, items)
    until_ms[known] = rows.time_ms[acted[first]][np.searchsorted(items, item[known])]
    told = (rows.action[begin:end] == ACTIONS["impression"]) & (position > 0) & (rows.time_ms[begin:end] <= until_ms)
    order = np.lexsort((position[told], item[told]))
    shown, first = np.unique(item[told][order], return_index=True)
    return shown, position[told][order][first]


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
    placement_ids : tuple[str, ...]
        Placements to learn from.
    seed : int
    """

    def __init__(self, dataset: Dataset, placement_ids: tuple[str, ...], *, seed: int = 0) -> None:
        self.dataset = dataset
        self.placement_ids = placement_ids
        self._rng = np.random.default_rng(seed)
        self._bought = core_rs.feature_names().index("bought_baskets_ln")

    def collect(self, shop: Shop, actions: tuple[str, ...], end_ms: int) -> Rows:
        """Return the sampled candidates of all visits between now and `end_ms` that answer a question.

        Columns of the labels are `actions`. What is drawn depends on the calls before.
        """
        width, count = len(core_rs.feature_names()), len(actions)
        nothing = np.zeros((0, count), np.bool_), np.zeros((0, count), np.float32), np.zeros(0, np.int32)
        parts = [Rows(np.zeros((0, width), np.float32), *nothing, np.zeros(0, np.uint32))]
        followed = outcomes(self.dataset, actions, shop.now_ms, end_ms)
        came_so = attrgetter("visitor", "device", "campaign")
        visits_of = {so: list(came) for so, came in groupby(sorted(followed, key=came_so), key=came_so)}
        contexts = [self._context(*so) for so in visits_of]
        plans = zip(*(shop.plans(contexts, placement_id) for placement_id in self.placement_ids), strict=True)
        positions = _Positions(self.dataset.items)
        for came, of_context in zip(visits_of.values(), plans, strict=True):
            for plan in of_context:
                items = positions.of(plan)
                parts += [self._rows(plan, items, outcome) for outcome in came]
        return Rows.concatenate(parts)

    def _context(self, visitor: int, device: int, campaign: int) -> Context:
        campaign_id = self.dataset.campaigns[campaign]
        return Context(user_id=self.dataset.visitors[visitor], device=device, campaign_id=campaign_id)  # type: ignore[arg-type]

    def _rows(self, plan: core_rs.Plan, items: NDArray[np.int64], outcome: VisitOutcome) -> Rows:
        labels = np.stack([_among(items, wanted) for wanted in outcome.followed], axis=1)
        hit = labels.any(axis=1)
        share = np.where(plan.features[:, self._bought] > 0, _BOUGHT_SHARE, _OTHER_SHARE)
        kept = hit | (self._rng.random(len(items)) < share)
        weights = np.where(hit, 1.0, 1.0 / share)[kept, None] * outcome.asked
        positions, visitors = _positions(items[kept], outcome), np.full(kept.sum(), outcome.visitor, np.uint32)
        return Rows(plan.features[kept], labels[kept], weights.astype(np.float32), positions, visitors)


class _Positions:
    """Where the items of one engine are in an item table; the engine is asked once for the id of each."""

    def __init__(self, items: Sequence[str]) -> None:
        self._by_id = {item_id: position for position, item_id in enumerate(items)}
        self._by_number = np.full(0, -1, np.int64)

    def of(self, plan: core_rs.Plan) -> NDArray[np.int64]:
        """Return the position of the item of every row, shape (n,)."""
        numbers = plan.items
        missing = int(numbers.max(initial=0)) + 1 - len(self._by_number)
        if missing > 0:
            self._by_number = np.pad(self._by_number, (0, missing), constant_values=-1)
        if (self._by_number[numbers] < 0).any():
            self._by_number[numbers] = [self._by_id[item_id] for item_id in plan.item_ids]
        return self._by_number[numbers]


def _positions(items: NDArray[np.int64], outcome: VisitOutcome) -> NDArray[np.int32]:
    """Return the position at which each item was shown, 0 where it was not."""
    positions = np.zeros(len(items), np.int32)
    known = _among(items, outcome.shown)
    positions[known] = outcome.positions[np.searchsorted(outcome.shown, items[known])]
    return positions


def _among(values: NDArray[np.int64], ascending: NDArray[np.int64]) -> NDArray[np.bool_]:
    place = np.minimum(np.searchsorted(ascending, values), max(len(ascending) - 1, 0))
    return ascending[place] == values if len(ascending) else np.zeros(len(values), np.bool_)
