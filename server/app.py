"""The composition root: settings become adapters, engine, services and a gRPC server."""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

import grpc
import uvloop
from grpc_reflection.v1alpha import reflection

from core_rs import Engine
from server import telemetry
from server.adapters.sqlite_log import open_log
from server.bundles import BundleStore
from server.changes import Changes
from server.clock import clock_of
from server.defaults import add_placements
from server.guard import Guard
from server.health import Health
from server.models import Models
from server.ports import EventLog
from server.rpc import Service
from server.services.catalog import CatalogService
from server.services.events import EventService
from server.services.models import ModelService
from server.services.placements import PlacementService
from server.services.profiles import ProfileService
from server.services.recommendations import RecommendationService
from server.settings import Settings, TlsSettings
from server.shadow import Shadow
from server.workers.encoder import EncoderWorker
from server.workers.replica import Replica
from server.workers.statements import StatementRecorder

_GRACE_S: Final = 20.0
_CONNECTION_AGE_MS: Final = 600_000
_DRAIN_S: Final = 3.0


class App:
    """One replica with its gRPC server.

    Parameters
    ----------
    settings : of the deployment
    index : number of the replica on this machine
    log : log to follow; None opens that of the settings
    """

    def __init__(self, settings: Settings, *, index: int = 0, log: EventLog | None = None) -> None:
        self._settings = settings
        self._index = index
        self._clock = clock_of(settings.clock)
        self._log = log or open_log(settings)
        self.engine = Engine(
            token_key=token_key_of(settings),
            consent_default=settings.privacy.consent_default,
            decision_share=settings.decisions.share,
            time_zone=settings.time_zone,
        )
        store = BundleStore(settings.bundle_dir, settings.time_zone)
        self._models = Models(self.engine, store)
        self._replica = Replica(
            self.engine, self._log, settings, telemetry.LOG_LAG_RECORDS.set, self._models.before_apply
        )
        self._encoder = EncoderWorker(self.engine, self._models)
        self._statements = StatementRecorder(self.engine, self._log)
        shadow = Shadow(self.engine, self._models)
        documents, serving = (
            Changes(settings.data_dir / f"{name}.lock", self._replica.follow) for name in ("documents", "serving")
        )
        self._services: tuple[Service, ...] = (
            EventService(self.engine, self._log, self._clock),
            CatalogService(self.engine, self._log, self._clock),
            ProfileService(self.engine, self._log, self._clock, settings.forgotten_after),
            PlacementService(self.engine, documents, self._log, self._clock),
            RecommendationService(self.engine, self._models, shadow, self._log, self._clock),
            ModelService(self.engine, self._models, store, shadow, serving, self._log, self._clock),
        )
        self._guard = Guard(settings.limits)
        names = [service.descriptor.full_name for service in self._services]
        self._health = Health(names, needs_log=EventService.descriptor.full_name)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> str:
        """Return the address once the replica is up to date and the server answers.

        Raises
        ------
        LogUnavailableError : the log cannot be read or written
        OSError : the address, or that of the metrics, cannot be listened on
        """
        await asyncio.to_thread(self._replica.restore, self._models.restore)
        await asyncio.to_thread(self._log.finish_erasures)
        await asyncio.to_thread(self._encoder.drain, _DRAIN_S)
        self._replica.start()
        self._log.on_commit(lambda _: self._encoder.wake())
        self._encoder.start()
        self._statements.start()
        await asyncio.to_thread(add_placements, self._log, self._clock.now_ms())
        self._observe()
        self._server = self._make_server()
        address = self._listen()
        await self._server.start()
        await self._health.serving()
        self._tasks = [
            asyncio.create_task(telemetry.watch_loop()),
            asyncio.create_task(self._health.watch(self._log, self._clock, self._guard)),
        ]
        return address

    async def stop(self) -> None:
        """Finish the calls in work, write what is queued, save a snapshot."""
        await self._health.stopping()
        for task in self._tasks:
            task.cancel()
        await self._server.stop(_GRACE_S)
        await asyncio.to_thread(self._statements.stop)
        await asyncio.to_thread(self._encoder.stop)
        await asyncio.to_thread(self._replica.stop)
        await asyncio.to_thread(self._log.close)

    def _make_server(self) -> grpc.aio.Server:
        limits = self._settings.limits
        server = grpc.aio.server(
            maximum_concurrent_rpcs=4 * limits.concurrent,
            options=(
                ("grpc.so_reuseport", int(self._settings.listen.workers > 1)),
                ("grpc.max_receive_message_length", limits.import_message_bytes),
                ("grpc.max_connection_age_ms", _CONNECTION_AGE_MS),
                ("grpc.max_connection_age_grace_ms", int(_GRACE_S * 1000)),
            ),
        )
        for service in self._services:
            self._guard.add_to(server, service)
        self._health.add_to(server)
        names = [service.descriptor.full_name for service in self._services]
        reflection.enable_server_reflection([*names, "grpc.health.v1.Health", reflection.SERVICE_NAME], server)
        return server

    def _listen(self) -> str:
        listen = self._settings.listen
        target = f"{listen.address}:{listen.port}"
        try:
            if credentials := _credentials(listen.tls):
                port = self._server.add_secure_port(target, credentials)
            else:
                port = self._server.add_insecure_port(target)
        except RuntimeError as error:  # gRPC does not say why
            taken = f"cannot listen on {target}: it is taken or not of this machine; free it or set listen.port"
            raise OSError(taken) from error
        return f"{listen.address}:{port}"

    def _observe(self) -> None:
        telemetry.serve_metrics(self._settings, self._index)
        telemetry.DECISIONS_DROPPED.set_function(lambda: self._log.dropped_count)
        for kind in self.engine.counts():
            telemetry.ENGINE_ENTRIES.labels(kind).set_function(partial(self._count, kind))
        telemetry.CONSENT_DEFAULT.set(self._settings.privacy.consent_default)
        telemetry.ENCODER_WAITING.set_function(lambda: self.engine.waiting)
        telemetry.BUNDLE_AGE_SECONDS.set_function(lambda: self._models.age_s(self._clock.now_ms()))

    def _count(self, kind: str) -> int:
        return self.engine.counts()[kind]


def _credentials(tls: TlsSettings) -> grpc.ServerCredentials | None:
    """Return what the server shows its clients; OSError says which file is at fault, which gRPC does not."""
    if not (tls.cert and tls.key):
        return None
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.cert, tls.key, password="")
        return grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
    except OSError as error:
        pair = f"listen.tls.cert {tls.cert} and listen.tls.key {tls.key}"
        raise OSError(f"{pair} cannot be used ({error}); give a PEM certificate and the PEM key of it") from error


def token_key_of(settings: Settings) -> bytes:
    """Return the key that signs attribution tokens: that of the settings, else one kept in the data folder."""
    if given := settings.token_key.get_secret_value():
        return given.encode()
    path = settings.data_dir / "token.key"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(f".{os.getpid()}")
        made.touch(mode=0o600)
        made.write_text(secrets.token_hex(32), encoding="ascii")
        with contextlib.suppress(FileExistsError):  # several replicas start at once, one of them wins
            os.link(made, path)
        made.unlink()
    return path.read_bytes()


def run_replica(settings: Settings, index: int, ready: Callable[[str], None]) -> None:
    """Run one replica until SIGTERM; `ready` is told the address."""
    telemetry.configure_logging(settings.log_level)
    uvloop.run(_serve_replica(settings, index, ready))


async def _serve_replica(settings: Settings, index: int, ready: Callable[[str], None]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    app = App(settings, index=index)
    address = await app.start()
    gc.freeze()  # what is alive now lives on: collections look at young objects only
    ready(address)
    await stopping.wait()
    await app.stop()
