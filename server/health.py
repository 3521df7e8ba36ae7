"""What load balancers are told: which services can work now."""

import asyncio
from collections.abc import Collection
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from server.guard import Guard
from server.ports import Clock, EventLog, LogUnavailableError

_Status = health_pb2.HealthCheckResponse

_PERIOD_S: Final = 1.0
_QUIET_S: Final = 5.0

_log = structlog.get_logger()


class Health:
    """Standard health service; a service that needs the log stops serving while the log cannot be written.

    Parameters
    ----------
    services : full names of all services
    needs_log : the one that only writes; decisions go on without the log
    """

    def __init__(self, services: Collection[str], needs_log: str) -> None:
        self._servicer = health.aio.HealthServicer()
        self._services = services
        self._needs_log = needs_log

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the health service."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def serving(self) -> None:
        """Say that everything works."""
        for name in ("", *self._services):
            await self._servicer.set(name, _Status.SERVING)

    async def stopping(self) -> None:
        """Say for good that nothing works any more."""
        await self._servicer.enter_graceful_shutdown()

    async def watch(self, log: EventLog, clock: Clock, guard: Guard) -> None:
        """Follow for ever whether the log takes records: an empty append works and no call failed lately."""
        available = True
        while True:
            await asyncio.sleep(_PERIOD_S)
            now_available = await _takes_records(log, clock) and guard.seconds_since_log_fault > _QUIET_S
            if now_available != available:
                available = now_available
                _log.warning("log availability changed", available=available)
                status = (
                    health_pb2.HealthCheckResponse.SERVING if available else health_pb2.HealthCheckResponse.NOT_SERVING
                )
                await self._servicer.set(self._needs_log, status)


async def _takes_records(log: EventLog, clock: Clock) -> bool:
    try:
        await log.append([], clock.now_ms())
    except LogUnavailableError:
        return False
    return True
