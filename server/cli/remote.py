"""A running server as commands see it: one channel, the stubs, a deadline for every call."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.table import Table

from shopkeeper.calls import CHANNEL_OPTIONS
from shopkeeper.v1 import catalog_service_pb2, item_pb2
from shopkeeper.v1 import recommendation_service_pb2 as recommendation_pb
from shopkeeper.v1.catalog_service_pb2_grpc import CatalogServiceStub
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from shopkeeper.v1.placement_service_pb2_grpc import PlacementServiceStub
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

AddressOption = Annotated[
    str,
    typer.Option(
        "--address", envvar="SHOPKEEPER_ADDRESS", help="HOST:PORT of a running server, tls://HOST:PORT of one with TLS."
    ),
]
DEFAULT_ADDRESS = "127.0.0.1:50051"
CALL_S = 10.0
"""Deadline of an ordinary call, seconds."""
LOAD_S = 120.0
"""Deadline of a call that loads a bundle, seconds."""
_BATCH_IDS = 1_000
_TLS = "tls://"


class Remote:
    """Stubs of one server."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.catalog = CatalogServiceStub(channel)
        self.models = ModelServiceStub(channel)
        self.placements = PlacementServiceStub(channel)
        self.recommendations = RecommendationServiceStub(channel)

    def items(self, item_ids: Iterable[str]) -> dict[str, item_pb2.Item]:
        """Return the items of these ids that the catalogue knows."""
        wanted = sorted(set(item_ids))
        found: dict[str, item_pb2.Item] = {}
        for start in range(0, len(wanted), _BATCH_IDS):
            request = catalog_service_pb2.BatchGetItemsRequest(item_ids=wanted[start : start + _BATCH_IDS])
            found |= {item.item_id: item for item in self.catalog.BatchGetItems(request, timeout=CALL_S).items}
        return found

    def slate_rows(self, slate: recommendation_pb.Slate) -> list[dict[str, Any]]:
        """Return a slate as rows that people can read."""
        items = self.items(
            [item.item_id for item in slate.items]
            + [item.because_item_id for item in slate.items if item.because_item_id]
        )
        return [_row(position, shown, items) for position, shown in enumerate(slate.items, 1)]


def is_serving(address: str, timeout_s: float) -> bool:
    """Return whether the server at `address` says that it can work; grpc.RpcError where none answers."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@contextmanager
def connected(address: str) -> Iterator[Remote]:
    """Give the server at `address`; faults of calls are grpc.RpcError.

    TLS trusts the authorities of gRPC, or those in the file that `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH` names.
    """
    if address.startswith(_TLS):
        credentials = grpc.ssl_channel_credentials()
        channel = grpc.secure_channel(address.removeprefix(_TLS), credentials, CHANNEL_OPTIONS)
    else:
        channel = grpc.insecure_channel(address, CHANNEL_OPTIONS)
    with channel:
        yield Remote(channel)


def slate_table(title: str, rows: Iterable[dict[str, Any]]) -> Table:
    """Return the table of a slate."""
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    for name in ("item", "product", "brand"):
        table.add_column(name, overflow="fold")
    table.add_column("price", justify="right")
    table.add_column("why", overflow="fold")
    for row in rows:
        why = row["reason"] + (f": {row['because']}" if row["because"] else "")
        price = "" if row["price"] is None else f"{row['price']:.2f}"
        table.add_row(str(row["position"]), row["item_id"], row["title"], row["brand"], price, why)
    return table


def _row(position: int, shown: recommendation_pb.RecommendedItem, items: dict[str, item_pb2.Item]) -> dict[str, Any]:
    item = items.get(shown.item_id, item_pb2.Item())
    because = items.get(shown.because_item_id)
    return {
        "position": position,
        "item_id": shown.item_id,
        "title": item.title,
        "brand": item.brand,
        "price": item.price.units + item.price.nanos / 1e9 if item.HasField("price") else None,
        "reason": recommendation_pb.Reason.Name(shown.reason).removeprefix("REASON_").lower().replace("_", " "),
        "because": because.title if because else "",
        "score": shown.score,
        "sources": list(shown.sources),
    }
