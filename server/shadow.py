"""A bundle on trial in the shadow: it answers a share of the requests once more, behind the answers shown."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import structlog

from core_rs import Engine, EngineError
from server import telemetry
from server.models import Models
from shopkeeper.v1.model_service_pb2 import Trial, TrialReport
from shopkeeper.v1.recommendation_service_pb2 import RecommendResponse, Slate

_MOST_WAITING: Final = 64

_log = structlog.get_logger()


@dataclass
class _Tally:
    """Sums over the requests of one trial."""

    requests: int = 0
    dropped: int = 0
    failed: int = 0
    slates: int = 0
    agreement: float = 0.0
    same_first: int = 0
    seconds: float = 0.0
    served_seconds: float = 0.0


class Shadow:
    """Comparison of the bundle on trial with the one that serves, in one replica.

    It works on the event loop behind the answers at hand; where it falls behind, it passes requests over.

    Parameters
    ----------
    engine : holds the trial
    models : score the candidates
    """

    def __init__(self, engine: Engine, models: Models) -> None:
        self._engine = engine
        self._models = models
        self._waiting = 0
        self._trial = b""
        self._tally = _Tally()

    def follow(self, request: bytes, now_ms: int, response: bytes, served_s: float) -> None:
        """Answer `request` once more when the loop has time, and compare with `response`, which took `served_s`."""
        if self._waiting >= _MOST_WAITING:
            self._current().dropped += 1
            telemetry.SHADOW_REQUESTS.labels("dropped").inc()
            return
        self._waiting += 1
        asyncio.get_running_loop().call_soon(self._answer, request, now_ms, response, served_s)

    def report(self) -> TrialReport:
        """Return what was seen of the present trial."""
        tally = self._current()
        requests, slates = max(tally.requests, 1), max(tally.slates, 1)
        return TrialReport(
            request_count=tally.requests,
            dropped_count=tally.dropped,
            failed_count=tally.failed,
            mean_agreement=tally.agreement / slates,
            first_agreement=tally.same_first / slates,
            mean_duration_us=tally.seconds / requests * 1e6,
            mean_served_duration_us=tally.served_seconds / requests * 1e6,
        )

    def _current(self) -> _Tally:
        """Return the sums of the present trial; another trial begins at nothing."""
        if (trial := self._engine.trial) != self._trial:
            self._trial, self._tally = trial, _Tally()
        return self._tally

    def _answer(self, request: bytes, now_ms: int, response: bytes, served_s: float) -> None:
        self._waiting -= 1
        tally = self._current()
        if not self._trial:
            return
        started = time.perf_counter()
        try:
            plan = self._engine.begin(request, now_ms, on_trial=True)
            actions, degraded = self._models.score(plan.model_version, plan.features)
            answer = self._engine.finish(plan, actions, degraded)
        except EngineError:
            _log.exception("shadow_failed", trial=Trial.FromString(self._trial).version)
            tally.failed += 1
            telemetry.SHADOW_REQUESTS.labels("failed").inc()
            return
        taken = time.perf_counter() - started
        failed = bool(degraded) or "bundle_not_loaded" in answer.degraded
        tally.requests += 1
        tally.failed += failed
        tally.seconds += taken
        tally.served_seconds += served_s
        telemetry.SHADOW_REQUESTS.labels("failed" if failed else "answered").inc()
        telemetry.SHADOW_SECONDS.observe(taken)
        self._compare(tally, RecommendResponse.FromString(response), RecommendResponse.FromString(answer.response))

    def _compare(self, tally: _Tally, shown: RecommendResponse, other: RecommendResponse) -> None:
        for ours, theirs in zip(shown.slates, other.slates, strict=True):
            if not ours.items:
                continue
            share = agreement(ours, theirs)
            tally.slates += 1
            tally.agreement += share
            tally.same_first += bool(theirs.items) and ours.items[0].item_id == theirs.items[0].item_id
            telemetry.SHADOW_AGREEMENT.observe(share)


def agreement(shown: Slate, other: Slate) -> float:
    """Return the share of the items of `shown`, which has some, that `other` has too, 0 to 1."""
    others = {item.item_id for item in other.items}
    return sum(item.item_id in others for item in shown.items) / len(shown.items)
