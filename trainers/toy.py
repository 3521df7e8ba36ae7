"""A shop of six items, for examples and trials of a recommender."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from trainers.base import DAY_MS
from trainers.dataset import ACTIONS, Dataset
from trainers.recommender import NOBODY, Queries

_AISLES = {
    "bread": "bakery",
    "butter": "dairy",
    "coffee": "drinks",
    "filters": "drinks",
    "jam": "bakery",
    "milk": "dairy",
}
_BASKETS = {
    "ann": ("bread butter", "bread jam"),
    "ben": ("bread butter", "milk"),
    "cleo": ("coffee filters", "coffee milk"),
    "dan": ("coffee filters", "coffee"),
    "eve": ("bread butter jam", "bread"),
}
_MINUTE_MS = 60_000


def toy() -> Dataset:
    """Return what five visitors viewed, item by item, and then bought, a basket a day; items in order of the alphabet.

    >>> toy().items
    ['bread', 'butter', 'coffee', 'filters', 'jam', 'milk']
    """
    rows = []
    for visitor, baskets in _BASKETS.items():
        for day, basket in enumerate(map(str.split, baskets)):
            views = [(f"{visitor}{day}{item}", item, "view", place) for place, item in enumerate(basket)]
            bought = [(f"{visitor}{day}", item, "purchase", len(basket)) for item in basket]
            rows += [(visitor, *row, day * DAY_MS + minute * _MINUTE_MS) for *row, minute in views + bought]
    columns = ["visitor_id", "event_id", "item_id", "event_type", "time_ms"]
    paths = [["food", aisle] for aisle in _AISLES.values()]
    items = pl.DataFrame({"item_id": list(_AISLES), "title": list(_AISLES), "category_path": paths})
    return Dataset.from_frames(pl.DataFrame(rows, schema=columns, orient="row"), items)


def question(*items: str) -> Queries:
    """Return the history of somebody new who viewed these items, a minute after each other.

    >>> question("coffee", "milk").item
    array([2, 5], dtype=uint32)
    """
    count = len(items)
    return Queries(
        visitor=np.array([NOBODY], np.uint32),
        offsets=np.array([0, count]),
        item=np.array([list(_AISLES).index(item) for item in items], np.uint32),
        action=np.full(count, ACTIONS["view"], np.uint8),
        time_ms=2 * DAY_MS + _MINUTE_MS * np.arange(count),
        n_items=len(_AISLES),
    )


def names(items: NDArray[np.uint32]) -> list[list[str]]:
    """Return the ids of items by their positions, those of each row.

    >>> names(np.array([[0, 4]], np.uint32))
    [['bread', 'jam']]
    """
    return [[list(_AISLES)[item] for item in row] for row in items.tolist()]
