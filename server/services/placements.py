"""Placements and controls: documents that go into the log whole and are read from the engine."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import core_rs
from core_rs import Engine, NotFoundError
from server.changes import Changes
from server.errors import ServiceError, checked_id, required
from server.paging import next_token, page_of
from server.ports import Clock, EventLog, NewRecord
from shopkeeper.v1 import placement_service_pb2 as pb
from shopkeeper.v1.placement_pb2 import Control, Placement
from shopkeeper.v1.record_pb2 import RECORD_KIND_DOCUMENT, DocumentChange

Document = TypeVar("Document", Placement, Control)


class _Access(NamedTuple, Generic[Document]):
    """How one kind of document is read and checked."""

    id_field: str
    parse: Callable[[bytes], Document]
    check: Callable[[bytes], None]
    read: Callable[[str], bytes]


class PlacementService:
    """Upsert, get, list and delete placements and controls.

    Parameters
    ----------
    engine : documents as served
    changes : turns of those who change documents
    log : where changes go
    clock : time of a change
    """

    descriptor = pb.DESCRIPTOR.services_by_name["PlacementService"]
    raw_methods = frozenset[str]()

    def __init__(self, engine: Engine, changes: Changes, log: EventLog, clock: Clock) -> None:
        self._engine = engine
        self._log = log
        self._clock = clock
        self._changes = changes
        self._placements = _Access("placement_id", Placement.FromString, core_rs.check_placement, engine.placement)
        self._controls = _Access("control_id", Control.FromString, core_rs.check_control, engine.control)

    async def upsert_placement(self, request: pb.UpsertPlacementRequest) -> pb.UpsertPlacementResponse:
        """Return the placement as kept."""
        if not request.HasField("placement"):
            raise required("placement")
        placement = request.placement
        await self._replace(self._placements, placement, DocumentChange(placement=placement))
        return pb.UpsertPlacementResponse(placement=self._read(self._placements, placement.placement_id))

    async def get_placement(self, request: pb.GetPlacementRequest) -> pb.GetPlacementResponse:
        """Return one placement."""
        return pb.GetPlacementResponse(placement=self._read(self._placements, request.placement_id))

    async def list_placements(self, request: pb.ListPlacementsRequest) -> pb.ListPlacementsResponse:
        """Return a page of placements."""
        page = page_of("ListPlacements", request.page_size, request.page_token)
        documents = self._engine.placements()
        return pb.ListPlacementsResponse(
            placements=map(Placement.FromString, documents[page.start : page.start + page.size]),
            next_page_token=next_token("ListPlacements", page, len(documents)),
        )

    async def delete_placement(self, request: pb.DeletePlacementRequest) -> pb.DeletePlacementResponse:
        """Remove a placement."""
        change = DocumentChange(placement=Placement(placement_id=request.placement_id), deleted=True)
        async with self._changes.turn():
            self._check_etag(self._read(self._placements, request.placement_id), request.etag, "etag")
            await self._append(change)
        return pb.DeletePlacementResponse()

    async def upsert_control(self, request: pb.UpsertControlRequest) -> pb.UpsertControlResponse:
        """Return the control as kept; it may name placements that there are only."""
        if not request.HasField("control"):
            raise required("control")
        control = request.control
        for index, placement_id in enumerate(control.placement_ids):
            self._check_known(placement_id, f"control.placement_ids[{index}]")
        await self._replace(self._controls, control, DocumentChange(control=control))
        return pb.UpsertControlResponse(control=self._read(self._controls, control.control_id))

    async def get_control(self, request: pb.GetControlRequest) -> pb.GetControlResponse:
        """Return one control."""
        return pb.GetControlResponse(control=self._read(self._controls, request.control_id))

    async def list_controls(self, request: pb.ListControlsRequest) -> pb.ListControlsResponse:
        """Return a page of controls."""
        page = page_of("ListControls", request.page_size, request.page_token)
        documents = self._engine.controls()
        return pb.ListControlsResponse(
            controls=map(Control.FromString, documents[page.start : page.start + page.size]),
            next_page_token=next_token("ListControls", page, len(documents)),
        )

    async def delete_control(self, request: pb.DeleteControlRequest) -> pb.DeleteControlResponse:
        """Remove a control."""
        change = DocumentChange(control=Control(control_id=request.control_id), deleted=True)
        async with self._changes.turn():
            self._check_etag(self._read(self._controls, request.control_id), request.etag, "etag")
            await self._append(change)
        return pb.DeleteControlResponse()

    def _check_known(self, placement_id: str, field: str) -> None:
        try:
            self._placements.read(placement_id)
        except NotFoundError:
            text = f"`{field}` names `{placement_id}`, which does not exist; upsert that placement first"
            raise ServiceError("PLACEMENT_NOT_FOUND", text, field=field) from None

    def _read(self, access: _Access[Document], document_id: str) -> Document:
        return access.parse(access.read(checked_id(access.id_field, document_id)))

    async def _replace(self, access: _Access[Document], document: Document, change: DocumentChange) -> None:
        """Append a document if it is valid and nobody else changed it since it was read."""
        access.check(document.SerializeToString())
        async with self._changes.turn():
            try:
                current = access.parse(access.read(getattr(document, access.id_field)))
            except NotFoundError:
                current = None
            self._check_etag(current, document.etag, f"{access.id_field.removesuffix('_id')}.etag")
            await self._append(change)

    @staticmethod
    def _check_etag(current: Placement | Control | None, etag: str, field: str) -> None:
        if etag and etag != (current.etag if current else ""):
            text = f"`{field}` is not that of the document as it is now; read it again, then repeat the change"
            raise ServiceError("ETAG_MISMATCH", text, field=field)

    async def _append(self, change: DocumentChange) -> None:
        record = NewRecord(RECORD_KIND_DOCUMENT, "", "", change.SerializeToString())
        await self._log.append([record], self._clock.now_ms())
