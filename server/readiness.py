"""Which recommender has enough to work with, and what the others wait for."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from server.ports import RowStore
from server.quality import DAY_MS

NOISE: Final = 100
"""Of what a recommender counts, as many as its first ranks need to be more than chance."""
LEARNT_LINES: Final = 500
"""Lines of one action from which on a ranker learns it."""
JUDGED_VISITORS: Final = 100
"""Visitors with a later visit, without whom no ranker can be compared with the heuristic."""
SEQUENCES: Final = 1_000
"""Histories of five events that an encoder learns from."""
TREND_DAYS: Final = 14
ARRIVAL_DAYS: Final = 60
"""Days that an item counts as a new arrival."""

_WANTED: Final = "('view', 'click', 'add_to_cart', 'add_to_wishlist', 'purchase')"
_LEARNABLE: Final = "('purchase', 'add_to_cart', 'add_to_wishlist', 'view', 'click', 'return', 'dislike')"

FACTS: Final = (
    f"""
    SELECT
        countIf(event_type IN {_WANTED}) AS wanted_lines,
        countIf(event_type IN {_WANTED} AND time_ms > {{end:Int64}} - {TREND_DAYS * DAY_MS}) AS wanted_lately,
        countIf(event_type IN ('view', 'click')) AS looks,
        countIf(event_type = 'purchase') AS bought_lines
    FROM events FINAL
    """,  # noqa: S608
    """
    SELECT
        countIf(viewed > 1) AS viewers_of_two,
        countIf(bought > 1) AS buyers_of_two,
        countIf(baskets > 1) AS returning_buyers,
        countIf(baskets > 2) AS buyers_of_three_baskets,
        countIf(steps > 4) AS long_histories
    FROM (
        SELECT
            visitor_id,
            uniqExactIf(item_id, event_type IN ('view', 'click')) AS viewed,
            uniqExactIf(item_id, event_type = 'purchase') AS bought,
            countIf(event_type = 'purchase' AND line = 0) AS baskets,
            countIf(item_id != '' AND event_type != 'impression') AS steps
        FROM events FINAL
        GROUP BY visitor_id
    ) AS visitors
    """,
    """
    SELECT countIf(items > 1) AS baskets_of_two
    FROM (
        SELECT uniqExact(item_id) AS items FROM events FINAL WHERE event_type = 'purchase' GROUP BY visitor_id, event_id
    ) AS baskets
    """,
    """
    SELECT countIf(baskets > 1) AS items_bought_again
    FROM (
        SELECT uniqExact(event_id) AS baskets FROM events FINAL WHERE event_type = 'purchase'
        GROUP BY visitor_id, item_id
    ) AS pairs
    """,
    f"""
    SELECT max(lines) AS lines_of_one_action
    FROM (SELECT count() AS lines FROM events FINAL WHERE event_type IN {_LEARNABLE} GROUP BY event_type) AS actions
    """,  # noqa: S608
    f"""
    SELECT
        countIf(notEmpty(category_path)) AS items_with_category,
        countIf(title != '') AS items_with_title,
        countIf(release_ms <= {{end:Int64}} AND release_ms > {{end:Int64}} - {ARRIVAL_DAYS * DAY_MS}) AS arrivals
    FROM items FINAL WHERE NOT deleted
    """,  # noqa: S608
)
"""Queries of one row each; `end` is the moment of the newest event, Unix milliseconds."""


class Need(NamedTuple):
    """What a recommender waits for."""

    fact: str
    """Column of `FACTS`."""
    least: int
    unit: str
    """What is counted, as it reads after a number."""


class Recommender(NamedTuple):
    """Source, ranker or encoder, and what it needs."""

    name: str
    needs: tuple[Need, ...]
    file: str = ""
    """File of a bundle that it reads; empty where it learns from the events as they come."""
    maker: str = "`shopkeeper train`, then publish and activate it"
    """How the file is made."""


class Readiness(NamedTuple):
    """How far a recommender is."""

    name: str
    state: Literal["usable", "trainable", "waiting"]
    missing: tuple[str, ...]
    """How many of what it still needs, e.g. `12 more visitors who bought two items`."""
    then: str
    """How to make it usable where the data are enough; empty else."""
    share: float
    """Of its scarcest need, 0 to 1."""


_BUYERS: Final = Need("buyers_of_two", NOISE, "visitors who bought two items")

RECOMMENDERS: Final = (
    Recommender("popular", (Need("wanted_lines", NOISE, "lines of views, carts or purchases"),)),
    Recommender(
        "trending", (Need("wanted_lately", NOISE, f"lines of views, carts or purchases within {TREND_DAYS} days"),)
    ),
    Recommender("new_arrivals", (Need("arrivals", 1, f"items released within {ARRIVAL_DAYS} days"),)),
    Recommender("recently_viewed", (Need("looks", 1, "views or clicks"),)),
    Recommender("personal_top", (Need("bought_lines", 1, "purchases"),)),
    Recommender("buy_again", (Need("items_bought_again", NOISE, "items that a visitor bought in two baskets"),)),
    Recommender("same_category", (Need("items_with_category", 2, "items with a category"),)),
    Recommender(
        "also_viewed", (Need("viewers_of_two", NOISE, "visitors who viewed two items"),), "also_viewed.safetensors"
    ),
    Recommender("also_bought", (_BUYERS,), "also_bought.safetensors"),
    Recommender(
        "bought_together", (Need("baskets_of_two", NOISE, "baskets of two items"),), "bought_together.safetensors"
    ),
    Recommender(
        "next_basket",
        (Need("buyers_of_three_baskets", NOISE, "visitors with three baskets"),),
        "next_basket.safetensors",
    ),
    Recommender("user_to_user", (_BUYERS,), "user_to_user.safetensors"),
    Recommender(
        "similar_content",
        (Need("items_with_title", NOISE, "items with a title"),),
        "content_items.safetensors",
        "`shopkeeper train --with content`",
    ),
    Recommender(
        "ranker",
        (
            Need("lines_of_one_action", LEARNT_LINES, "lines of one action, best of purchases"),
            Need("returning_buyers", JUDGED_VISITORS, "visitors with two baskets"),
        ),
        "ranker.onnx",
    ),
    Recommender(
        "sequence",
        (Need("long_histories", SEQUENCES, "visitors with five events"),),
        "sequence.onnx",
        "`shopkeeper train --with sequence`",
    ),
)
"""Every recommender; those that read a bundle come after those that need none."""


def facts_of(store: RowStore, end_ms: int) -> dict[str, int]:
    """Return every fact that a recommender may need; `end_ms` is the moment of the newest event."""
    facts: dict[str, int] = {}
    for sql in FACTS:
        (row,) = store.query(sql, {"end": end_ms} if "{end:" in sql else None).to_pylist()
        facts |= row
    return facts


def readiness(facts: Mapping[str, int], files: Collection[str]) -> list[Readiness]:
    """Return how far each recommender is; `files` are those of the newest bundle."""
    return [_readiness(one, facts, files) for one in RECOMMENDERS]


def next_of(found: Iterable[Readiness]) -> Readiness | None:
    """Return the recommender that needs the least share of what it waits for; None if none waits."""
    waiting = [one for one in found if one.state == "waiting"]
    return max(waiting, key=lambda one: one.share, default=None)


def _readiness(one: Recommender, facts: Mapping[str, int], files: Collection[str]) -> Readiness:
    missing = tuple(f"{need.least - facts[need.fact]:,} more {need.unit}" for need in one.needs if _lacks(need, facts))
    share = min(min(1.0, facts[need.fact] / need.least) for need in one.needs)
    if missing:
        return Readiness(one.name, "waiting", missing, "", share)
    if one.file and one.file not in files:
        return Readiness(one.name, "trainable", (), one.maker, share)
    return Readiness(one.name, "usable", (), "", share)


def _lacks(need: Need, facts: Mapping[str, int]) -> bool:
    return facts[need.fact] < need.least
