"""A small shop whose visitors come every week for much the same."""

import base64
import datetime as dt
from pathlib import Path

import grpc
import numpy as np
import polars as pl

from server.defaults import PLACEMENTS
from shopkeeper.v1 import event_pb2, event_service_pb2_grpc, model_service_pb2_grpc
from shopkeeper.v1.catalog_service_pb2 import UpsertItemsRequest
from shopkeeper.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shopkeeper.v1.common_pb2 import Context, Money
from shopkeeper.v1.event_service_pb2 import ImportEventsRequest
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2 import ActivateModelRequest, PublishModelRequest

DAY = 86_400_000
SPLIT = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)
SPLIT_MS = int(SPLIT.timestamp() * 1000)
VISITORS, ITEMS, DAYS = 60, 40, 120


def purchases(visitors: int = VISITORS) -> pl.DataFrame:
    """Visitors who shop weekly, each one half of a few favourites and the other in turn, with some of everything.

    The heuristic, which knows not whose turn it is, ranks them worse than a ranker, and not by chance.
    """
    rng = np.random.default_rng(5)
    favourites = [rng.choice(ITEMS, 8, replace=False) for _ in range(visitors)]
    rows = []
    for visitor in range(visitors):
        for day in range(visitor % 7, DAYS, 7):
            time_ms = SPLIT_MS + (day - DAYS + 14) * DAY + 3_600_000 * (visitor % 12) + visitor
            lines = {*favourites[visitor][day // 7 % 2 :: 2], rng.integers(ITEMS)}
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


def views() -> pl.DataFrame:
    """Every item looked at one after the other, in the ten minutes before it was bought."""
    return purchases().with_columns(
        event_id=pl.format("w-{}-{}", "event_id", "line"),
        line=pl.lit(0, pl.Int64),
        event_type=pl.lit("view"),
        time_ms=pl.col("time_ms") - 600_000 + pl.col("line") * 60_000,
    )


def write_tables(folder: Path) -> None:
    """Write what an export holds beside events."""
    names = [f"i{number:02}" for number in range(ITEMS)]
    paths = [_path(number) for number in range(ITEMS)]
    pl.DataFrame({"item_id": names, "category_path": paths}).write_parquet(folder / "items.parquet")
    payloads = [base64.b64encode(placement.SerializeToString()).decode() for placement in PLACEMENTS]
    pl.DataFrame({"payload": payloads}).write_parquet(folder / "placements.parquet")
    (folder / "meta.json").write_text("{}")


async def serve(address: str, lines: pl.DataFrame, version: str) -> None:
    """Import the history into a running server and let a bundle serve."""
    async with grpc.aio.insecure_channel(address) as channel:
        await import_history(channel, lines)
        await activate(channel, version)


async def import_history(channel: grpc.aio.Channel, lines: pl.DataFrame) -> None:
    """Import the catalogue and the history."""
    items = [Item(item_id=f"i{number:02}", category_path=_path(number)) for number in range(ITEMS)]
    await CatalogServiceStub(channel).UpsertItems(UpsertItemsRequest(items=items))
    groups = lines.sort("time_ms", "event_id", "line").group_by("event_id", maintain_order=True)
    events = [_event(str(event_id), group) for (event_id,), group in groups]
    batches = [ImportEventsRequest(events=events[start : start + 500]) for start in range(0, len(events), 500)]
    counts = await event_service_pb2_grpc.EventServiceStub(channel).ImportEvents(iter(batches))
    assert counts.accepted_count == len(events)


async def activate(channel: grpc.aio.Channel, version: str) -> None:
    """Publish a bundle of the incoming folder and let it serve."""
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    await models.PublishModel(PublishModelRequest(version=version))
    await models.ActivateModel(ActivateModelRequest(version=version))


def _path(number: int) -> list[str]:
    return ["GROCERY", f"aisle {number % 5}"]


def _event(event_id: str, lines: pl.DataFrame) -> event_pb2.Event:
    price = Money(currency_code="EUR", units=2, nanos=500_000_000)
    event = event_pb2.Event(
        event_id=event_id,
        event_type=event_pb2.EventType.Value(f"EVENT_TYPE_{lines['event_type'][0].upper()}"),
        context=Context(user_id=lines["visitor_id"][0]),
        items=[event_pb2.EventItem(item_id=item, quantity=1, price=price) for item in lines["item_id"]],
    )
    event.event_time.FromMilliseconds(lines["time_ms"][0])
    return event
