"""What the context of a decision is worth: rankers that must do without a part of it, beside the whole one."""

import core_rs

PARTS = ("time", "promotion", "price", "place", "device", "campaign")
"""Groups of the feature table that tell about the moment; all others stay in every ranker."""


def variants() -> dict[str, tuple[int, ...]]:
    """Return the columns that each ranker of the comparison lacks, by its name in the table."""
    groups = [group for _, group, _, _ in core_rs.feature_table()]
    lost = {f"without {part}": tuple(n for n, group in enumerate(groups) if group == part) for part in PARTS}
    return {"full": (), **lost}
