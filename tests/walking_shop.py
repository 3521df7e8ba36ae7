"""A small shop whose visitors walk through it by a rule, to see whether a model learns an order."""

import numpy as np
import polars as pl

from trainers.dataset import Dataset

N_ITEMS = 24
STRIDE = 5


def walks(n_visitors: int = 160) -> Dataset:
    """Return visitors that view six items, each `STRIDE` further than the one before, from where chance begins."""
    starts = np.random.default_rng(3).integers(0, N_ITEMS, n_visitors)
    steps = [(visitor, step) for visitor in range(n_visitors) for step in range(6)]
    return Dataset.from_frames(
        pl.DataFrame(
            {
                "event_id": [f"e{number:05}" for number in range(len(steps))],
                "visitor_id": [f"v{visitor:03}" for visitor, _ in steps],
                "item_id": [f"i{(starts[visitor] + STRIDE * step) % N_ITEMS:02}" for visitor, step in steps],
                "event_type": ["view"] * len(steps),
                "time_ms": [1_700_000_000_000 + 60_000 * step for _, step in steps],
            }
        ),
        pl.DataFrame({"item_id": [f"i{number:02}" for number in range(N_ITEMS)]}),
    )
