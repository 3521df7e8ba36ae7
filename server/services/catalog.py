"""The catalogue: items go into the log and are read from the engine."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

import core_rs
from core_rs import Engine, InvalidRequestError, NotFoundError
from server.errors import checked_id, out_of_range, required
from server.paging import page_of, token_of
from server.ports import Clock, EventLog, NewRecord
from shopkeeper.v1 import catalog_service_pb2 as pb
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import RECORD_KIND_ITEM, ItemChange

_MAX_BATCH: Final = 1_000
_MAX_SAMPLES: Final = 100
_EARLIEST_S: Final = 157_766_400
"""First second of 1975; before it lie clocks that were not set and times in another unit."""
_AHEAD_S: Final = 86_400


class CatalogService:
    """Upsert, get, list, delete and import items.

    Parameters
    ----------
    engine : the catalogue as served
    log : where changes go
    clock : time of a change
    """

    descriptor = pb.DESCRIPTOR.services_by_name["CatalogService"]
    raw_methods = frozenset[str]()

    def __init__(self, engine: Engine, log: EventLog, clock: Clock) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock

    async def upsert_items(self, request: pb.UpsertItemsRequest) -> pb.UpsertItemsResponse:
        """Return how many items were taken and why others were not."""
        _check_count("items", len(request.items))
        paths = request.update_mask.paths
        for index, path in enumerate(paths):
            if path == "item_id" or path not in Item.DESCRIPTOR.fields_by_name:
                raise out_of_range(f"update_mask.paths[{index}]", f"names `{path}`; name fields of Item but its id")
        set_time = request.set_time if request.HasField("set_time") else None
        if set_time is not None:
            _check_set_time(set_time, self._clock.now_ms())
        rejected = await self._take(request.items, paths, set_time)
        return pb.UpsertItemsResponse(accepted_count=len(request.items) - len(rejected), rejected=rejected)

    async def import_items(self, requests: AsyncIterator[pb.ImportItemsRequest]) -> pb.ImportItemsResponse:
        """Return the counts of a stream of batches, with the first refusals."""
        total = pb.ImportItemsResponse()
        seen = 0
        async for request in requests:
            _check_count("items", len(request.items))
            rejected = await self._take(request.items, (), None)
            for result in rejected:
                result.index += seen
            seen += len(request.items)
            total.rejected_count += len(rejected)
            total.error_samples.extend(rejected[: _MAX_SAMPLES - len(total.error_samples)])
        total.accepted_count = seen - total.rejected_count
        return total

    async def get_item(self, request: pb.GetItemRequest) -> pb.GetItemResponse:
        """Return one item."""
        return pb.GetItemResponse(item=self._item(request.item_id))

    async def batch_get_items(self, request: pb.BatchGetItemsRequest) -> pb.BatchGetItemsResponse:
        """Return the items found, and the ids without one."""
        _check_count("item_ids", len(request.item_ids))
        response = pb.BatchGetItemsResponse()
        for item_id in request.item_ids:
            try:
                response.items.append(self._item(item_id))
            except NotFoundError:
                response.missing_item_ids.append(item_id)
        return response

    async def list_items(self, request: pb.ListItemsRequest) -> pb.ListItemsResponse:
        """Return a page of items."""
        page = page_of("ListItems", request.page_size, request.page_token)
        items, position = self._engine.items(page.start, page.size)
        token = token_of("ListItems", position) if position else ""
        return pb.ListItemsResponse(items=map(Item.FromString, items), next_page_token=token)

    async def delete_item(self, request: pb.DeleteItemRequest) -> pb.DeleteItemResponse:
        """Remove an item."""
        self._item(request.item_id)
        await self._append([ItemChange(item=Item(item_id=request.item_id), deleted=True)])
        return pb.DeleteItemResponse()

    def _item(self, item_id: str) -> Item:
        return Item.FromString(self._engine.item(checked_id("item_id", item_id)))

    async def _take(
        self, items: Iterable[Item], paths: Sequence[str], set_time: Timestamp | None
    ) -> list[pb.ItemResult]:
        """Append the valid items; return what was wrong with the others."""
        rejected, changes = [], []
        for index, item in enumerate(items):
            try:
                core_rs.check_item(item.SerializeToString(), index)
            except InvalidRequestError as error:
                rejected.append(pb.ItemResult(index=index, reason=error.reason, field=error.field, message=str(error)))
            else:
                changes.append(ItemChange(item=item, update_paths=paths, set_time=set_time))
        if changes:
            await self._append(changes)
        return rejected

    async def _append(self, changes: Iterable[ItemChange]) -> None:
        records = [NewRecord(RECORD_KIND_ITEM, "", "", change.SerializeToString()) for change in changes]
        await self._log.append(records, self._clock.now_ms())


def _check_set_time(set_time: Timestamp, now_ms: int) -> None:
    latest_s = now_ms // 1000 + _AHEAD_S
    if not (_EARLIEST_S <= set_time.seconds <= latest_s and 0 <= set_time.nanos < 1_000_000_000):  # noqa: PLR2004
        text = f"is {set_time.seconds:,} s; send seconds since 1970, from 1975 to a day from now, or leave it out"
        raise out_of_range("set_time", text)


def _check_count(field: str, count: int) -> None:
    if not count:
        raise required(field)
    if count > _MAX_BATCH:
        raise out_of_range(field, f"has {count:,} entries; send at most {_MAX_BATCH:,} a request")
