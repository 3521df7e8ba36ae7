"""M: bytes that the engine holds for one visitor and for one item of the generated shop."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import shop
from measure import Row

_LIMITS: Final = {"visitor": 600.0, "item": 400.0}
_COUNTS: Final = {"visitor": shop.VISITORS, "item": shop.ITEMS}


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return resident bytes, as the system counts them, beside the engine's own count."""
    note(f"building {shop.ITEMS:,} items, {shop.VISITORS:,} visitors with {shop.EVENTS_EACH} events each")
    root = shop.ROOT / "data"
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        measures = shop.build_apart(folder / "shop")
    finally:
        shutil.rmtree(folder)
    rows = []
    for kind, limit in _LIMITS.items():
        value = measures[f"{kind}_resident_bytes"]
        counted = measures[f"{kind}_bytes"] / _COUNTS[kind]
        detail = {"counted_bytes": counted, "count": _COUNTS[kind]}
        rows.append(Row(f"M {kind}", value, f"bytes/{kind}", "limit", limit, limit / value, detail=detail))
    return rows
