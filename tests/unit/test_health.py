"""Load balancers hear when the log is away; decisions go on."""

import asyncio

from grpc_health.v1 import health_pb2

from server import health
from server.adapters.memory_log import MemoryLog
from server.clock import SystemClock
from server.health import Health
from server.ports import LogUnavailableError

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class FlakyLog(MemoryLog):
    available = True

    async def append(self, records, time_ms):
        if not self.available:
            raise LogUnavailableError("full")
        return await super().append(records, time_ms)


class QuietGuard:
    seconds_since_log_fault = float("inf")


async def status_of(checked, name):
    return (await checked._servicer.Check(health_pb2.HealthCheckRequest(service=name), None)).status


async def becomes(checked, name, wanted):
    async with asyncio.timeout(5):
        while await status_of(checked, name) != wanted:  # noqa: ASYNC110 - the service has no event to wait for
            await asyncio.sleep(0.01)


async def test_only_the_service_that_writes_stops_while_the_log_is_away(monkeypatch):
    monkeypatch.setattr(health, "_PERIOD_S", 0.01)
    checked, log, guard = Health(["Events", "Recommend"], needs_log="Events"), FlakyLog(), QuietGuard()
    await checked.serving()
    watching = asyncio.create_task(checked.watch(log, SystemClock(), guard))
    log.available = False
    await becomes(checked, "Events", NOT_SERVING)
    assert await status_of(checked, "Recommend") == await status_of(checked, "") == SERVING
    log.available = True
    await becomes(checked, "Events", SERVING)
    guard.seconds_since_log_fault = 0.0
    await becomes(checked, "Events", NOT_SERVING)
    watching.cancel()
    await checked.stopping()
    assert await status_of(checked, "") == NOT_SERVING
