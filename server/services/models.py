"""Bundles: publish, activate, roll back, try."""

import asyncio

from core_rs import Engine
from server.bundles import BundleStore, Manifest
from server.changes import Changes
from server.errors import ServiceError, out_of_range, required
from server.models import Models
from server.paging import next_token, page_of
from server.ports import Clock, EventLog, NewRecord
from server.shadow import Shadow
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, Activation


class ModelService:
    """List, get, publish, activate, roll back and try bundles.

    Parameters
    ----------
    engine : knows which bundle is active
    models : bundles of this process
    store : bundles on disk
    shadow : knows how a trial goes
    changes : turns of those who change what serves
    log : where activations go
    clock : time of an activation
    """

    descriptor = pb.DESCRIPTOR.services_by_name["ModelService"]
    raw_methods = frozenset[str]()

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that a bundle passes through
        self,
        engine: Engine,
        models: Models,
        store: BundleStore,
        shadow: Shadow,
        changes: Changes,
        log: EventLog,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._models = models
        self._store = store
        self._shadow = shadow
        self._log = log
        self._clock = clock
        self._changes = changes
        self._publishing = asyncio.Lock()

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
        async with self._publishing:
            manifest = await self._store.publish(request.version)
        return pb.PublishModelResponse(model=self._card(manifest))

    async def activate_model(self, request: pb.ActivateModelRequest) -> pb.ActivateModelResponse:
        """Return the card of the bundle that serves now."""
        async with self._changes.turn():
            return pb.ActivateModelResponse(model=await self._activate(request.version))

    async def rollback_model(self, _request: pb.RollbackModelRequest) -> pb.RollbackModelResponse:
        """Return the card of the bundle that served before and serves again."""
        async with self._changes.turn():
            if not self._engine.previous_model:
                raise ServiceError(
                    "NO_PREVIOUS_MODEL", "there is no bundle to go back to; activate the one that shall serve"
                )
            model = await self._activate(self._engine.previous_model, is_rollback=True)
            return pb.RollbackModelResponse(model=model)

    async def start_trial(self, request: pb.StartTrialRequest) -> pb.StartTrialResponse:
        """Return the trial that is in force now; the one before, if any, ended."""
        trial = _checked(request.trial)
        trial.start_time.FromMilliseconds(self._clock.now_ms())
        async with self._changes.turn():
            self._store.manifest_to_serve(trial.version)
            await asyncio.to_thread(self._models.load, trial.version)
            active = self._engine.active_model
            if active in {"", trial.version}:
                why = "no bundle serves" if not active else f"`{active}` serves already"
                raise ServiceError("TRIAL_REFUSED", f"{why}; a trial needs one that serves and another one to try")
            await self._append(Activation(trial=trial, is_trial_only=True))
        return pb.StartTrialResponse(trial=trial)

    async def get_trial(self, _request: pb.GetTrialRequest) -> pb.GetTrialResponse:
        """Return the trial in force and what this replica saw of it."""
        trial = pb.Trial.FromString(self._engine.trial)
        if not trial.version:
            return pb.GetTrialResponse()
        report = self._shadow.report() if trial.mode == pb.Trial.MODE_SHADOW else None
        return pb.GetTrialResponse(trial=trial, report=report)

    async def stop_trial(self, _request: pb.StopTrialRequest) -> pb.StopTrialResponse:
        """End the trial, if there is one."""
        async with self._changes.turn():
            if self._engine.trial:
                await self._append(Activation(is_trial_only=True))
        return pb.StopTrialResponse()

    async def _activate(self, version: str, *, is_rollback: bool = False) -> pb.Model:
        manifest = self._store.manifest_to_serve(version)
        await asyncio.to_thread(self._models.load, version)
        if version != self._engine.active_model or self._engine.trial:
            await self._append(Activation(version=version, is_rollback=is_rollback))
        return self._card(manifest)

    async def _append(self, activation: Activation) -> None:
        record = NewRecord(RECORD_KIND_ACTIVATION, "", "", activation.SerializeToString())
        await self._log.append([record], self._clock.now_ms())

    def _state(self, version: str) -> pb.Model.State.ValueType:
        if version == self._engine.active_model:
            return pb.Model.STATE_ACTIVE
        on_trial = pb.Trial.FromString(self._engine.trial).version
        return pb.Model.STATE_TRIAL if version == on_trial else pb.Model.STATE_PUBLISHED

    def _card(self, manifest: Manifest) -> pb.Model:
        card = pb.Model(
            version=manifest.version,
            state=self._state(manifest.version),
            event_count=manifest.event_count,
            actions=manifest.actions,
            metrics=[pb.ModelMetric(name=name, value=metric.value) for name, metric in manifest.metrics.items()],
            schema_hash=manifest.schema_hash,
        )
        card.create_time.FromMilliseconds(manifest.create_ms)
        card.train_start_time.FromMilliseconds(manifest.train_start_ms)
        card.train_end_time.FromMilliseconds(manifest.train_end_ms)
        return card


def _checked(trial: pb.Trial) -> pb.Trial:
    if trial.mode not in {pb.Trial.MODE_SHADOW, pb.Trial.MODE_CANARY}:
        raise required("trial.mode")
    if not 0 < trial.share <= 1:
        raise out_of_range("trial.share", f"is {trial.share}; give a share above 0 and at most 1")
    return trial
