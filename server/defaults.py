"""The placements a shop has before anyone configures one."""

from typing import Final

from server.ports import EventLog, LogRecord, NewRecord
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.record_pb2 import RECORD_KIND_DOCUMENT, DocumentChange

ID_PREFIX: Final = "placement/"
"""Of the record ids of defaults, and of no others."""


def _sources(*uses: tuple[str, float, int]) -> list[SourceUse]:
    """Return uses of sources by name, weight under the heuristic and most candidates."""
    return [SourceUse(source=name, weight=weight, limit=limit) for name, weight, limit in uses]


_OWN: Final = (("personal_top", 1.0, 1_000), ("buy_again", 1.0, 200), ("next_basket", 1.0, 300))
_LIKE: Final = (
    ("user_to_user", 0.7, 200),
    ("also_bought", 0.7, 200),
    ("also_viewed", 0.7, 200),
    ("sequence", 0.7, 200),
)
_SHOP: Final = (("new_arrivals", 0.1, 50), ("trending", 0.1, 50), ("popular", 0.1, 200))

PLACEMENTS: Final = (
    Placement(
        placement_id="home_for_you",
        description="Home page: what this visitor is most likely to buy next",
        sources=_sources(*_OWN, *_LIKE, *_SHOP),
        use_model=True,
    ),
    Placement(
        placement_id="home_discover",
        description="Home page: what this visitor never bought and may like",
        sources=_sources(*_LIKE, ("next_basket", 0.5, 300), ("bought_together", 0.3, 150), *_SHOP),
        bought_rule=Placement.BOUGHT_RULE_EXCLUDE,
        use_model=True,
    ),
    Placement(
        placement_id="home_trending",
        description="Home page: what is rising",
        sources=_sources(("trending", 1.0, 200), ("popular", 0.1, 200)),
    ),
    Placement(
        placement_id="home_new",
        description="Home page: what is new",
        sources=_sources(("new_arrivals", 1.0, 200)),
    ),
    Placement(
        placement_id="product_also_bought",
        description="Product page: what buyers of the product also bought or viewed",
        sources=_sources(("also_bought", 1.0, 200), ("also_viewed", 0.5, 200), ("same_category", 0.1, 200)),
    ),
    Placement(
        placement_id="product_bought_together",
        description="Product page: what goes into one basket with the product",
        sources=_sources(("bought_together", 1.0, 200), ("also_bought", 0.2, 200)),
        page_size=4,
    ),
    Placement(
        placement_id="product_similar",
        description="Product page: what could be bought in place of the product",
        sources=_sources(("similar_content", 1.0, 200), ("same_category", 1.0, 200), ("also_viewed", 0.5, 200)),
    ),
    Placement(
        placement_id="cart_addons",
        description="Cart: what goes with what is in it",
        sources=_sources(
            ("bought_together", 1.0, 200), ("also_bought", 0.5, 200), ("next_basket", 0.5, 200), ("buy_again", 0.5, 200)
        ),
        use_model=True,
    ),
    Placement(
        placement_id="email_picks",
        description="E-mail: a varied choice for this visitor",
        sources=_sources(*_OWN, *_LIKE, *_SHOP),
        use_model=True,
        max_per_category=3,
    ),
    Placement(
        placement_id="buy_again",
        description="What this visitor buys regularly, due first",
        sources=_sources(("buy_again", 1.0, 200), ("personal_top", 0.5, 200)),
        bought_rule=Placement.BOUGHT_RULE_ONLY,
    ),
    Placement(
        placement_id="recently_viewed",
        description="What this visitor looked at last",
        sources=_sources(("recently_viewed", 1.0, 200)),
    ),
)


def add_placements(log: EventLog, time_ms: int) -> None:
    """Append the placements once in the life of a log; one that was changed or removed since stays so. Blocks."""
    records = [
        NewRecord(
            RECORD_KIND_DOCUMENT,
            "",
            f"{ID_PREFIX}{placement.placement_id}",
            DocumentChange(placement=placement).SerializeToString(deterministic=True),
        )
        for placement in PLACEMENTS
    ]
    list(log.import_records([records], time_ms))


def is_default(record: LogRecord) -> bool:
    """Return whether the record is one of the placements of `add_placements`, which gives way to whatever was set."""
    return record.kind == RECORD_KIND_DOCUMENT and record.record_id.startswith(ID_PREFIX)
