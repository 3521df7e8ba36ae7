"""A small shop whose visitors come every week for much the same."""

import datetime as dt

import numpy as np
import polars as pl

DAY = 86_400_000
SPLIT = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
SPLIT_MS = int(SPLIT.timestamp() * 1000)
VISITORS, ITEMS, DAYS = 60, 40, 120


def purchases(visitors: int = VISITORS) -> pl.DataFrame:
    """Visitors who shop weekly, each from a small set of favourites with some of everything between."""
    rng = np.random.default_rng(5)
    favourites = [rng.choice(ITEMS, 8, replace=False) for _ in range(visitors)]
    rows = []
    for visitor in range(visitors):
        for day in range(visitor % 7, DAYS, 7):
            time_ms = SPLIT_MS + (day - DAYS + 14) * DAY + 3_600_000 * (visitor % 12) + visitor
            lines = {*rng.choice(favourites[visitor], 4, replace=False), rng.integers(ITEMS)}
            rows += [
                (f"e-{visitor}-{day}", line, f"v{visitor:02}", f"i{item:02}", time_ms)
                for line, item in enumerate(sorted(lines))
            ]
    columns = ["event_id", "line", "visitor_id", "item_id", "time_ms"]
    return pl.DataFrame(rows, columns, orient="row").with_columns(
        event_type=pl.lit("purchase"),
        quantity=pl.lit(1, pl.Int64),
        price=pl.lit(2.5),
        currency=pl.lit("EUR"),
        session_id=pl.lit(""),
        store_id=pl.lit(""),
        query=pl.lit(""),
    )
