"""What every trainer learns from: one row an event line, with the item table beside it."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shopkeeper.v1 import common_pb2, event_pb2, placement_pb2

ACTIONS: dict[str, int] = {
    name.removeprefix("EVENT_TYPE_").lower(): number for name, number in event_pb2.EventType.items() if number
}
"""Number of every event type by its lower-case name, e.g. `purchase`."""

DEVICES: dict[str, int] = {
    name.removeprefix("DEVICE_").lower(): number for name, number in common_pb2.Device.items() if number
}
"""Number of every device by its lower-case name, e.g. `phone`."""

HELD_OUT_FILE = "held_out.parquet"
"""Event lines that the log does not hold yet, beside those of an export: what models must foresee."""

HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Catalogue:
    """Attributes of the items, position by position as in `Dataset.items`; what an item lacks is empty or NaN.

    `vectors` are what the shop knows of its items by other means, e.g. of their images, shape (n_items, width).
    """

    titles: list[str]
    category_paths: list[tuple[str, ...]]
    brands: list[str]
    price: NDArray[np.float32]
    vectors: NDArray[np.float32] | None = None

    def category(self, level: int = -1) -> NDArray[np.int32]:
        """Return the dense number of each item's category at `level` of its path, -1 where it has none."""
        names = [path[level] if path and level < len(path) else "" for path in self.category_paths]
        return _numbers(names)

    def brand(self) -> NDArray[np.int32]:
        """Return the dense number of each item's brand, -1 where it has none."""
        return _numbers(self.brands)

    def of_items(self, kept: NDArray[np.bool_]) -> "Catalogue":
        """Return what is known of the items where `kept` holds."""
        numbers = np.flatnonzero(kept).tolist()
        return Catalogue(
            titles=[self.titles[number] for number in numbers],
            category_paths=[self.category_paths[number] for number in numbers],
            brands=[self.brands[number] for number in numbers],
            price=self.price[kept],
            vectors=None if self.vectors is None else self.vectors[kept],
        )

    def within(self, names: Sequence[str], level: int | None = None) -> NDArray[np.bool_]:
        """Return which items lie in one of the categories `names`, at `level` of their path or, without it, at any."""
        wanted = set(names)
        paths = self.category_paths if level is None else [path[level : level + 1] for path in self.category_paths]
        return np.array([not wanted.isdisjoint(path) for path in paths], dtype=np.bool_)


@dataclass(frozen=True)
class Facts:
    """What there is to learn from: first and last moment, and how many events, visitors and items it is about."""

    start_ms: int
    end_ms: int
    event_count: int
    visitor_count: int
    item_count: int


@dataclass(frozen=True)
class Dataset:
    """Event lines as columns, sorted by (visitor, time_ms, basket, item).

    Attributes
    ----------
    visitors, items : list[str]
        Id tables; `visitor` and `item` index them. Every slice of a data set keeps the same tables.
    visitor, item : NDArray[np.uint32] of shape (n_rows,)
    action : NDArray[np.uint8]
        Number of `EventType`.
    time_ms : NDArray[np.int64]
    basket : NDArray[np.uint32]
        Dense number of the event (order, page view, …) the line belongs to, in order of time.
    quantity : NDArray[np.float32]
    price : NDArray[np.float32]
        Price paid for one unit; NaN where unknown.
    position : NDArray[np.int32]
        Where in a slate the item stood, from 1; 0 where unknown.
    device : NDArray[np.uint8]
        Number of `Device`; 0 where unknown.
    campaign : NDArray[np.uint32]
        What brought the visitor, an index of `campaigns`; 0 where no campaign did.
    catalogue : Catalogue
    campaigns : list[str]
        Id table; the first id is empty.
    """

    visitors: list[str]
    items: list[str]
    visitor: NDArray[np.uint32]
    item: NDArray[np.uint32]
    action: NDArray[np.uint8]
    time_ms: NDArray[np.int64]
    basket: NDArray[np.uint32]
    quantity: NDArray[np.float32]
    price: NDArray[np.float32]
    position: NDArray[np.int32]
    device: NDArray[np.uint8]
    campaign: NDArray[np.uint32]
    catalogue: Catalogue
    campaigns: list[str]

    def __len__(self) -> int:
        return len(self.visitor)

    @property
    def n_visitors(self) -> int:
        """Size of the visitor table."""
        return len(self.visitors)

    @property
    def n_items(self) -> int:
        """Size of the item table."""
        return len(self.items)

    def facts(self) -> Facts:
        """Return what the rows are about; without rows the last moment is 0 and the first one the greatest there is."""
        return Facts(
            start_ms=int(self.time_ms.min(initial=np.iinfo(np.int64).max)),
            end_ms=int(self.time_ms.max(initial=0)),
            event_count=len(np.unique(self.basket)),
            visitor_count=len(np.unique(self.visitor)),
            item_count=len(np.unique(self.item)),
        )

    def before(self, time_ms: int) -> "Dataset":
        """Return the rows older than `time_ms`: all that was known at that moment."""
        return self.where(self.time_ms < time_ms)

    def since(self, time_ms: int) -> "Dataset":
        """Return the rows of `time_ms` and later."""
        return self.where(self.time_ms >= time_ms)

    def of(self, *actions: str) -> "Dataset":
        """Return the rows of these event types, by their lower-case names."""
        return self.where(np.isin(self.action, [ACTIONS[name] for name in actions]))

    def where(self, mask: NDArray[np.bool_]) -> "Dataset":
        """Return the rows where `mask` holds."""
        return replace(
            self,
            visitor=self.visitor[mask],
            item=self.item[mask],
            action=self.action[mask],
            time_ms=self.time_ms[mask],
            basket=self.basket[mask],
            quantity=self.quantity[mask],
            price=self.price[mask],
            position=self.position[mask],
            device=self.device[mask],
            campaign=self.campaign[mask],
        )

    def of_items(self, kept: NDArray[np.bool_]) -> "Dataset":
        """Return the rows of the items where `kept` holds, with an item table of these alone."""
        rows = self.where(kept[self.item])
        return replace(
            rows,
            items=[self.items[number] for number in np.flatnonzero(kept).tolist()],
            item=(np.cumsum(kept) - 1)[rows.item].astype(np.uint32),
            catalogue=self.catalogue.of_items(kept),
        )

    @classmethod
    def from_frames(cls, events: pl.DataFrame, items: pl.DataFrame | None = None) -> "Dataset":
        """Return the data set of two tables with the columns of an export.

        Parameters
        ----------
        events : pl.DataFrame
            Needs event_id, visitor_id, item_id, event_type and time_ms; quantity, price, position, device
            and campaign_id are optional. Lines without an item are left out.
        items : pl.DataFrame, optional
            Needs item_id; title, category_path, brand, price and vector (lists of one width) are optional. Items seen
            in events only come after.
        """
        rows = events.filter(pl.col("item_id") != "").with_columns(
            pl.col("event_type").replace_strict(ACTIONS, return_dtype=pl.UInt8).alias("action"),
            *_optional(events, "quantity", pl.Float32, 1.0),
            *_optional(events, "price", pl.Float32, float("nan")),
            *_optional(events, "position", pl.Int32, 0),
            *_optional(events, "device", pl.String, ""),
            *_optional(events, "campaign_id", pl.String, ""),
        )
        known = [] if items is None else items["item_id"].to_list()
        item_ids = known + sorted(set(rows["item_id"].unique().to_list()) - set(known))
        visitor_ids = rows["visitor_id"].unique().sort().to_list()
        campaigns = ["", *sorted(set(rows["campaign_id"].unique().to_list()) - {""})]
        baskets = rows.select("time_ms", "event_id").unique("event_id").sort("time_ms", "event_id")
        rows = (
            rows.with_columns(
                _index(visitor_ids, "visitor_id").alias("visitor"),
                _index(item_ids, "item_id").alias("item"),
                _index(campaigns, "campaign_id").alias("campaign"),
                pl.col("device").replace_strict(DEVICES, default=0, return_dtype=pl.UInt8),
            )
            .join(baskets.select("event_id").with_row_index("basket"), on="event_id", how="left")
            .sort("visitor", "time_ms", "basket", "item")
        )
        return cls(
            visitors=visitor_ids,
            items=item_ids,
            visitor=rows["visitor"].cast(pl.UInt32).to_numpy(),
            item=rows["item"].cast(pl.UInt32).to_numpy(),
            action=rows["action"].to_numpy(),
            time_ms=rows["time_ms"].cast(pl.Int64).to_numpy(),
            basket=rows["basket"].cast(pl.UInt32).to_numpy(),
            quantity=rows["quantity"].to_numpy(),
            price=rows["price"].to_numpy(),
            position=rows["position"].to_numpy(),
            device=rows["device"].to_numpy(),
            campaign=rows["campaign"].cast(pl.UInt32).to_numpy(),
            campaigns=campaigns,
            catalogue=_catalogue(items, len(item_ids)),
        )


@dataclass(frozen=True)
class Export:
    """One export of the table view, as read from its folder.

    Attributes
    ----------
    dataset : Dataset
        Events with the held-out ones after them, if the folder has any.
    events, items : pl.DataFrame
        What the data set was made of.
    placements : list[placement_pb2.Placement]
    held_out_ms : int | None
        First full hour after the log's own events, where the folder has held-out events.
    export_ms : int
        When the export was written, Unix milliseconds.
    time_zone : str
        Of the shop.
    item_vectors : str
        What `catalogue.vectors` were read from, a file or `titles`; empty where there are none.
    """

    dataset: Dataset
    events: pl.DataFrame
    items: pl.DataFrame
    placements: list[placement_pb2.Placement]
    held_out_ms: int | None
    export_ms: int
    time_zone: str
    item_vectors: str = ""


def read_export(folder: Path) -> Export:
    """Return what the export in `folder` holds.

    Raises
    ------
    FileNotFoundError
        When a file is missing; the message names it and the command that writes it.
    """
    for name in ("events.parquet", "items.parquet", "placements.parquet", "meta.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing; write the export with `shopkeeper export`")
    events = pl.read_parquet(folder / "events.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    payloads = pl.read_parquet(folder / "placements.parquet")["payload"]
    held_out_ms = None
    if (folder / HELD_OUT_FILE).is_file():
        held_out = pl.read_parquet(folder / HELD_OUT_FILE, columns=events.columns)
        held_out_ms = _full_hour(events, held_out)
        events = pl.concat([events, held_out], how="vertical_relaxed")
    return Export(
        Dataset.from_frames(events, items),
        events,
        items,
        [placement_pb2.Placement.FromString(base64.b64decode(payload)) for payload in payloads],
        held_out_ms,
        int((folder / "meta.json").stat().st_mtime * 1000),
        json.loads((folder / "meta.json").read_text(encoding="utf-8")).get("time_zone", "UTC"),
    )


def _full_hour(events: pl.DataFrame, held_out: pl.DataFrame) -> int:
    """Return the last full hour that is not after the first held-out line, or the moment after the last known one."""
    first = held_out.select(pl.col("time_ms").min()).item()
    known = events.select(pl.col("time_ms").max()).item() or 0
    return max(int(first) // HOUR_MS * HOUR_MS, int(known) + 1)


def _optional(frame: pl.DataFrame, name: str, dtype: type[pl.DataType], default: float | str) -> list[pl.Expr]:
    column = pl.col(name).cast(dtype).fill_null(default) if name in frame.columns else pl.lit(default, dtype)
    return [column.alias(name)]


def _index(ids: list[str], column: str) -> pl.Expr:
    return pl.col(column).replace_strict(ids, list(range(len(ids))), return_dtype=pl.UInt32)


def _numbers(names: list[str]) -> NDArray[np.int32]:
    numbers: dict[str, int] = {"": -1}
    return np.array([numbers.setdefault(name, len(numbers) - 1) for name in names], dtype=np.int32)


def _catalogue(items: pl.DataFrame | None, count: int) -> Catalogue:
    frame = pl.DataFrame({"item_id": []}) if items is None else items
    missing = count - len(frame)

    def column(name: str) -> list[object]:
        return (frame[name].to_list() if name in frame.columns else [None] * len(frame)) + [None] * missing

    return Catalogue(
        titles=[str(title or "") for title in column("title")],
        category_paths=[tuple(path) if isinstance(path, list) else () for path in column("category_path")],
        brands=[str(brand or "") for brand in column("brand")],
        price=np.array([np.nan if price is None else price for price in column("price")], dtype=np.float32),
        vectors=_vectors(column("vector")) if "vector" in frame.columns else None,
    )


def _vectors(rows: list[object]) -> NDArray[np.float32]:
    """Return one row a vector, NaN where there is none; ValueError where widths differ."""
    widths = {len(row) for row in rows if isinstance(row, list)}
    if len(widths) > 1:
        raise ValueError(f"item vectors have {sorted(widths)} numbers; give every item a vector of one width")
    width = widths.pop() if widths else 0
    return np.array([row if isinstance(row, list) else [np.nan] * width for row in rows], dtype=np.float32)
