"""What the context of a decision is worth: rankers that must do without a part of it, beside the whole one."""

import core_rs

PARTS: dict[str, tuple[str, ...]] = {
    "time": (
        "recent",
        "trend",
        "bought_lately",
        "bought_recency",
        "bought_interval_days",
        "bought_due",
        "bought_first_days",
        "bought_rate_excess",
        "age_days",
        "days_since_purchase",
        "purchase_interval_days",
        "category_recency",
        "parent_recency",
        "brand_recency",
    ),
    "promotion": ("promoted_by_mailer", "promoted_by_display"),
    "price": ("price", "discount", "catalog_price_known", "price_to_usual"),
    "place": ("store_sales", "store_lift"),
    "device": ("on_phone", "in_email"),
    "campaign": ("from_campaign",),
}
"""Columns of the feature table by what they tell about the moment; sources and item counts stay."""


def variants() -> dict[str, tuple[int, ...]]:
    """Return the columns that each ranker of the comparison lacks, by its name in the table."""
    numbers = {name: number for number, name in enumerate(core_rs.feature_names())}
    lost = {f"without {part}": tuple(numbers[name] for name in names) for part, names in PARTS.items()}
    return {"full": (), **lost}
