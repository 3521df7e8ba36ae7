"""Bundles: publish, activate, roll back."""

import asyncio

from core_rs import Engine
from server.bundles import BundleStore, Manifest
from server.errors import ServiceError
from server.models import Models
from server.paging import next_token, page_of
from server.ports import Clock, EventLog, NewRecord
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, Activation


class ModelService:
    """List, get, publish, activate and roll back bundles.

    Parameters
    ----------
    engine : knows which bundle is active
    models : bundles of this process
    store : bundles on disk
    log : where activations go
    clock : time of an activation
    """

    descriptor = pb.DESCRIPTOR.services_by_name["ModelService"]
    raw_methods = frozenset[str]()

    def __init__(self, engine: Engine, models: Models, store: BundleStore, log: EventLog, clock: Clock) -> None:
        self._engine = engine
        self._models = models
        self._store = store
        self._log = log
        self._clock = clock
        self._lock = asyncio.Lock()

    async def list_models(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """Return a page of the published bundles, newest first."""
        page = page_of("ListModels", request.page_size, request.page_token)
        manifests = await asyncio.to_thread(self._store.manifests)
        return pb.ListModelsResponse(
            models=map(self._card, manifests[page.start : page.start + page.size]),
            next_page_token=next_token("ListModels", page, len(manifests)),
        )

    async def get_model(self, request: pb.GetModelRequest) -> pb.GetModelResponse:
        """Return the card of one bundle."""
        return pb.GetModelResponse(model=self._card(self._store.manifest(request.version)))

    async def publish_model(self, request: pb.PublishModelRequest) -> pb.PublishModelResponse:
        """Return the card of a bundle that passed the check; it does not serve yet."""
        async with self._lock:
            manifest = await self._store.publish(request.version)
        return pb.PublishModelResponse(model=self._card(manifest))

    async def activate_model(self, request: pb.ActivateModelRequest) -> pb.ActivateModelResponse:
        """Return the card of the bundle that serves now."""
        async with self._lock:
            return pb.ActivateModelResponse(model=await self._activate(request.version))

    async def rollback_model(self, _request: pb.RollbackModelRequest) -> pb.RollbackModelResponse:
        """Return the card of the bundle that served before and serves again."""
        async with self._lock:
            if not self._engine.previous_model:
                raise ServiceError("NO_PREVIOUS_MODEL", "no other bundle was active before; activate one")
            return pb.RollbackModelResponse(model=await self._activate(self._engine.previous_model))

    async def _activate(self, version: str) -> pb.Model:
        manifest = self._store.manifest(version)
        await asyncio.to_thread(self._models.load, version)
        if version != self._engine.active_model:
            payload = Activation(version=version).SerializeToString()
            await self._log.append([NewRecord(RECORD_KIND_ACTIVATION, "", "", payload)], self._clock.now_ms())
        return self._card(manifest)

    def _card(self, manifest: Manifest) -> pb.Model:
        active = manifest.version == self._engine.active_model
        card = pb.Model(
            version=manifest.version,
            state=pb.Model.STATE_ACTIVE if active else pb.Model.STATE_PUBLISHED,
            event_count=manifest.event_count,
            actions=manifest.actions,
            metrics=[pb.ModelMetric(name=name, value=metric.value) for name, metric in manifest.metrics.items()],
            schema_hash=manifest.schema_hash,
        )
        card.create_time.FromMilliseconds(manifest.create_ms)
        card.train_start_time.FromMilliseconds(manifest.train_start_ms)
        card.train_end_time.FromMilliseconds(manifest.train_end_ms)
        return card
