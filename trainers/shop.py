"""The shop as it was at any moment, in the engine that serves: what trainers learn from is what visitors would see."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import polars as pl
from numpy.typing import NDArray

import core_rs
from shopkeeper.v1 import common_pb2, item_pb2, placement_pb2, record_pb2
from shopkeeper.v1 import recommendation_service_pb2 as pb
from trainers.base import offsets_of
from trainers.dataset import ACTIONS
from trainers.sequence.model import GRAPH_FILE
from trainers.sessions import open_session

Record = tuple[int, int, bytes]
"""Kind, time in milliseconds, payload."""

SETS = {"all": "home_for_you", "explore": "home_discover"}
"""Placement that answers each set of the protocol."""
PAGE_SIZE = 120
"""Items that evaluation asks for."""
_GREATEST_PRICE = 1e9
"""What the server takes, in currency units."""
_PLANNED_AT_ONCE = 64
_ENCODED_AT_ONCE = 64
_PROMOTION_COLUMNS = ("promotion_kinds", "promotion_start_ms", "promotion_end_ms", "promotion_shares")


class Shop:
    """Engine that moves forward in time over the events of an export.

    Parameters
    ----------
    events, items : pl.DataFrame
        Tables of the export.
    placements : list[placement_pb2.Placement]
        Placements that requests may name.
    time_zone : str
        Of the shop, whose hours and weekdays features read.
    """

    def __init__(
        self, events: pl.DataFrame, items: pl.DataFrame, placements: list[placement_pb2.Placement], time_zone: str
    ) -> None:
        self.engine = core_rs.Engine(time_zone=time_zone)
        self.now_ms = 0
        self._times, self._events = _event_records(events)
        self._applied = 0
        self._offset = 0
        self._encoder: ort.InferenceSession | None = None
        self._apply((record_pb2.RECORD_KIND_ITEM, 0, payload) for payload in item_payloads(items))
        documents = (record_pb2.DocumentChange(placement=placement) for placement in placements)
        self._apply((record_pb2.RECORD_KIND_DOCUMENT, 0, document.SerializeToString()) for document in documents)

    def advance(self, now_ms: int) -> None:
        """Apply the events before `now_ms` that are not applied yet; time never goes back."""
        if now_ms < self.now_ms:
            raise ValueError(f"the shop stands at {self.now_ms} and cannot go back to {now_ms}; make another one")
        end = int(np.searchsorted(self._times, now_ms, side="left"))
        rows = range(self._applied, end)
        self._apply((record_pb2.RECORD_KIND_EVENT, int(self._times[row]), self._events[row]) for row in rows)
        self._applied, self.now_ms = end, now_ms

    def install(self, folder: Path) -> None:
        """Let the bundle in `folder` serve, in place of the one before, with its encoder if it has one."""
        before, version = self.engine.active_model, self.engine.load_bundle(str(folder)).version
        self._activate(version, _encoder_of(folder))
        if before and before != version:
            self.engine.unload_bundle(before)

    @contextmanager
    def serving(self, folder: Path) -> Iterator[None]:
        """Let the bundle in `folder`, of another version than the installed one, serve within the block alone.

        Raises
        ------
        core_rs.EngineError
            When the bundle does not fit the engine; the installed one goes on serving.
        """
        before, encoder = self.engine.active_model, self._encoder
        version = self.engine.load_bundle(str(folder)).version
        self._activate(version, _encoder_of(folder))
        try:
            yield
        finally:
            self._activate(before, encoder)
            self.engine.unload_bundle(version)

    def plans(self, contexts: Sequence[common_pb2.Context], placement_id: str) -> Iterator[core_rs.Plan]:
        """Yield the candidates of one placement in each context, now, with sequence vectors that are up to date."""
        for start in range(0, len(contexts), _PLANNED_AT_ONCE):
            some = contexts[start : start + _PLANNED_AT_ONCE]
            wanted = [request(context, placement_id).SerializeToString() for context in some]
            plans = self.engine.begin_all(wanted, self.now_ms)
            yield from self.engine.begin_all(wanted, self.now_ms) if self._encode() else plans

    def slate(self, plan: core_rs.Plan, actions: NDArray[np.float32] | None) -> list[str]:
        """Return the items that `plan` shows where the ranker answers `actions`, best first; None: the heuristic."""
        answer = pb.RecommendResponse.FromString(self.engine.finish(plan, actions).response)
        return [item.item_id for item in answer.slates[0].items]

    def _encode(self) -> int:
        """Give all visitors that wait their sequence vectors; return how many got one."""
        count = 0
        while self._encoder and len(histories := self.engine.take_histories(_ENCODED_AT_ONCE)):
            inputs = {"items": histories.items, "actions": histories.actions, "gaps": histories.gaps}
            (vectors,) = self._encoder.run(["vector"], inputs)
            count += self.engine.set_vectors(histories, np.ascontiguousarray(vectors, np.float32))
        return count

    def _activate(self, version: str, encoder: ort.InferenceSession | None) -> None:
        self._encoder = encoder
        activation = record_pb2.Activation(version=version).SerializeToString()
        self._apply([(record_pb2.RECORD_KIND_ACTIVATION, self.now_ms, activation)])

    def _apply(self, records: Iterable[Record]) -> None:
        numbered = [(self._offset + step, *record) for step, record in enumerate(records, 1)]
        self.engine.apply(numbered)
        self._offset += len(numbered)


def _encoder_of(folder: Path) -> ort.InferenceSession | None:
    graph = folder / GRAPH_FILE
    return open_session(graph) if graph.is_file() else None


def known(visitor_id: str) -> common_pb2.Context:
    """Return the context in which offline and served evaluation ask for a visitor: no more than who it is."""
    return common_pb2.Context(user_id=visitor_id)


def request(context: common_pb2.Context, placement_id: str) -> pb.RecommendRequest:
    """Return the request that offline and served evaluation ask alike."""
    return pb.RecommendRequest(
        context=context,
        placements=[pb.PlacementRequest(placement_id=placement_id, page_size=PAGE_SIZE)],
    )


def _event_records(events: pl.DataFrame) -> tuple[NDArray[np.int64], list[bytes]]:
    """Return the time and the payload of every event, in order of time."""
    lines = events.sort("time_ms", "event_id", "line", maintain_order=True)
    first = lines["event_id"].ne_missing(lines["event_id"].shift(1)).to_numpy()
    heads = lines.filter(first)
    with_item = lines["item_id"].ne("").to_numpy()
    counts = np.add.reduceat(with_item.astype(np.int64), np.flatnonzero(first)) if len(lines) else np.zeros(0, np.int64)
    items = lines.filter(with_item)
    times = heads["time_ms"].cast(pl.Int64).to_numpy()
    encoded = core_rs.encode_events(
        heads["event_id"].to_list(),
        heads["event_type"].replace_strict(ACTIONS, return_dtype=pl.Int32).to_numpy(),
        times,
        heads["visitor_id"].to_list(),
        _texts(heads, "session_id"),
        _texts(heads, "store_id"),
        _texts(heads, "query"),
        offsets_of(counts),
        items["item_id"].to_list(),
        items["quantity"].cast(pl.Int32).to_numpy(),
        _micros(items["price"]),
        next((currency for currency in _texts(heads, "currency") if currency), "USD"),
    )
    return times, [payload for _, _, payload in encoded]


def _micros(price: pl.Series) -> NDArray[np.int64]:
    """Return prices in millionths; -1 for one that is unknown or no price."""
    values = price.fill_null(-1).to_numpy()
    known = (values >= 0) & (values <= _GREATEST_PRICE)
    return np.where(known, np.round(values * 1e6), -1).astype(np.int64)


def _texts(frame: pl.DataFrame, column: str) -> list[str]:
    return frame[column].fill_null("").to_list() if column in frame.columns else [""] * len(frame)


def item_payloads(items: pl.DataFrame) -> Iterator[bytes]:
    """Yield each item of an export as a record; of its promotions the engine reads those of a moment."""
    for row in items.iter_rows(named=True):
        item = item_pb2.Item(
            item_id=row["item_id"],
            title=row.get("title") or "",
            category_path=row.get("category_path") or [],
            brand=row.get("brand") or "",
        )
        unavailable = "unavailable" in str(row.get("availability") or "").lower()
        if unavailable:
            item.availability = item_pb2.Item.AVAILABILITY_UNAVAILABLE
        for field in ("price", "sale_price"):
            if row.get(field) is not None:
                getattr(item, field).CopyFrom(_money(row[field], row.get("currency") or "USD"))
        if row.get("stock_quantity") is not None:
            item.stock_quantity = row["stock_quantity"]
        if row.get("release_ms"):
            item.release_time.FromMilliseconds(row["release_ms"])
        for interval in zip(*(row.get(name) or () for name in _PROMOTION_COLUMNS), strict=True):
            _add_promotion(item, *interval)
        yield record_pb2.ItemChange(item=item).SerializeToString()


def _add_promotion(item: item_pb2.Item, kind: str, start_ms: int, end_ms: int, share: float) -> None:
    number = item_pb2.PromotionInterval.Kind.Value(f"KIND_{kind.upper()}")
    interval = item.promotion_intervals.add(kind=number, share=share)
    interval.start_time.FromMilliseconds(start_ms)
    interval.end_time.FromMilliseconds(end_ms)


def _money(amount: float, currency: str) -> common_pb2.Money:
    units, micros = divmod(round(amount * 1e6), 1_000_000)
    return common_pb2.Money(currency_code=currency, units=units, nanos=micros * 1000)
