"""A bundle on trial in the shadow: it answers a share of the requests once more, behind the answers shown."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from core_rs import Engine, EngineError
from server import telemetry
from server.models import Models
from shopkeeper.v1.model_service_pb2 import Trial, TrialReport
from shopkeeper.v1.recommendation_service_pb2 import RecommendResponse, Slate

_MOST_WAITING: Final = 64
_BEHIND_S: Final = 0.002
_MODEL_FAULT: Final = "model_"
"""How the reasons in `degraded` begin where the ranker did not score."""

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


class _Waiting(NamedTuple):
    """Request that was answered, and how."""

    request: bytes
    now_ms: int
    response: bytes
    served_s: float


class Shadow:
    """Comparison of the bundle on trial with the one that serves, in one replica.

    It works on the event loop, one request a turn and a little behind the answers shown, so that none of these waits
    for more than one of its own. Where it falls behind, it passes requests over.

    Parameters
    ----------
    engine : holds the trial
    models : score the candidates
    """

    def __init__(self, engine: Engine, models: Models) -> None:
        self._engine = engine
        self._models = models
        self._waiting: deque[_Waiting] = deque()
        self._trial = b""
        self._tally = _Tally()

    def follow(self, request: bytes, now_ms: int, response: bytes, served_s: float) -> None:
        """Answer `request` once more when the loop has time, and compare with `response`, which took `served_s`."""
        if len(self._waiting) >= _MOST_WAITING:
            self._current().dropped += 1
            telemetry.SHADOW_REQUESTS.labels("dropped").inc()
            return
        self._waiting.append(_Waiting(request, now_ms, response, served_s))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(_BEHIND_S, self._work)

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

    def _work(self) -> None:
        waiting = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_later(0, self._work)
        tally = self._current()
        if self._trial:
            outcome = "answered" if self._answer(waiting, tally) else "failed"
            tally.failed += outcome == "failed"
            telemetry.SHADOW_REQUESTS.labels(outcome).inc()

    def _answer(self, waiting: _Waiting, tally: _Tally) -> bool:
        """Return whether the bundle on trial answered; then its answer is compared."""
        started = time.perf_counter()
        try:
            answer = self._models.decide(waiting.request, waiting.now_ms, on_trial=True)
        except EngineError:
            _log.exception("shadow_failed", trial=Trial.FromString(self._trial).version)
            return False
        taken_s = time.perf_counter() - started
        shown, other = map(RecommendResponse.FromString, (waiting.response, answer.response))
        if not other.bundle_version or any(reason.startswith(_MODEL_FAULT) for reason in answer.degraded):
            return False
        tally.requests += 1
        tally.seconds += taken_s
        tally.served_seconds += waiting.served_s
        telemetry.SHADOW_SECONDS.observe(taken_s)
        self._compare(tally, shown, other)
        return True

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
