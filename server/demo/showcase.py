"""What a few households of the demo see, and how long an answer takes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from server.cli.remote import CALL_S, Remote
from shopkeeper.v1 import common_pb2
from shopkeeper.v1 import recommendation_service_pb2 as pb

HOUSEHOLDS = ("104", "1", "81")
"""A family with three children, a couple past 65, and one of the many households nothing is known about."""

_SHOWN = 5
_WARM_CALLS, _TIMED_CALLS = 100, 1_000
_CART_LINES = 3


@dataclass(frozen=True)
class Household:
    """One household and where it stands in the shop.

    Attributes
    ----------
    household_id : str
    traits : dict[str, str]
        What the shop knows of it.
    product : str
        Product page it looks at: what it buys most often.
    cart : list[str]
        Items in its cart: the first lines of its last basket.
    """

    household_id: str
    traits: dict[str, str]
    product: str
    cart: list[str]

    def requests(self) -> Iterator[tuple[str, pb.RecommendRequest]]:
        """Yield the title and the request of each place it comes to."""
        places: tuple[tuple[str, str, list[str]], ...] = (
            ("home page", "home_for_you", []),
            ("home page, something new", "home_discover", []),
            ("product page, goes with it", "product_bought_together", [self.product]),
            ("cart", "cart_addons", self.cart),
            ("e-mail", "email_picks", []),
        )
        for title, placement, anchors in places:
            cart = self.cart if placement == "cart_addons" else []
            slate = pb.PlacementRequest(placement_id=placement, page_size=_SHOWN, anchor_item_ids=anchors)
            context = common_pb2.Context(user_id=self.household_id, cart_item_ids=cart)
            request_id = f"demo-{self.household_id}-{placement}"
            yield title, pb.RecommendRequest(request_id=request_id, context=context, placements=[slate])


def households(export: Path) -> list[Household]:
    """Return the households to show, from an export."""
    events = pl.scan_parquet(export / "events.parquet").filter(pl.col("visitor_id").is_in(HOUSEHOLDS)).collect()
    profiles = pl.read_parquet(export / "profiles.parquet").filter(pl.col("visitor_id").is_in(HOUSEHOLDS))
    found = []
    for household_id in HOUSEHOLDS:
        lines = events.filter(pl.col("visitor_id") == household_id)
        most = lines.group_by("item_id").len().sort("len", "item_id", descending=[True, False])
        last = lines.filter(pl.col("event_id") == lines.sort("time_ms")["event_id"][-1])
        profile = profiles.filter(pl.col("visitor_id") == household_id)
        traits = dict(zip(*profile.select("trait_names", "trait_values").row(0), strict=True)) if len(profile) else {}
        cart = last.sort("line")["item_id"].head(_CART_LINES).to_list()
        found.append(Household(household_id, traits, most["item_id"][0], cart))
    return found


def show(remote: Remote, shown: Sequence[Household]) -> list[dict[str, Any]]:
    """Return what the server shows each household, place by place."""
    answers = []
    for household in shown:
        anchors = remote.items([household.product, *household.cart])
        slates = [
            {"place": title, "placement": request.placements[0].placement_id, "items": _ask(remote, request)}
            for title, request in household.requests()
        ]
        answers.append(
            {
                "household": household.household_id,
                "traits": household.traits,
                "product": anchors[household.product].title,
                "cart": [anchors[item_id].title for item_id in household.cart],
                "slates": slates,
            }
        )
    return answers


def latency(remote: Remote, visitor_ids: Sequence[str]) -> dict[str, float]:
    """Return milliseconds of one Recommend after the other, as a client on this machine waits for them."""
    took = []
    for call in range(_WARM_CALLS + _TIMED_CALLS):
        context = common_pb2.Context(user_id=visitor_ids[call % len(visitor_ids)])
        request = pb.RecommendRequest(context=context, placements=[pb.PlacementRequest(placement_id="home_for_you")])
        start = time.perf_counter()
        remote.recommendations.Recommend(request, timeout=CALL_S)
        took.append((time.perf_counter() - start) * 1e3)
    p50, p99 = np.quantile(took[_WARM_CALLS:], [0.5, 0.99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "calls": _TIMED_CALLS}


def visitors(export: Path) -> list[str]:
    """Return the visitors of an export, in order of their ids."""
    ids = pl.scan_parquet(export / "events.parquet").select(pl.col("visitor_id").unique().sort()).collect()
    return ids["visitor_id"].to_list()


def _ask(remote: Remote, request: pb.RecommendRequest) -> list[dict[str, Any]]:
    (slate,) = remote.recommendations.Recommend(request, timeout=CALL_S).slates
    return remote.slate_rows(slate)
