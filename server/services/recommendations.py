"""Decisions: engine, model, engine; the record of what was decided goes to the log behind the answer."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from time import perf_counter
from typing import Final

from core_rs import Answer, Engine, EngineError
from server import effects, telemetry
from server.errors import is_bug, out_of_range, required
from server.models import Models
from server.ports import Clock, EventLog, NewRecord
from server.shadow import Shadow
from shopkeeper.v1 import recommendation_service_pb2 as pb
from shopkeeper.v1.record_pb2 import RECORD_KIND_DECISION

_MAX_BATCH: Final = 1_000
_STAGES_EVERY: Final = 16
_DECISIONS_AT_ONCE: Final = 16
"""Decisions after which the event loop sees to other calls; all of them take a few milliseconds."""


class RecommendationService:
    """Recommend, BatchRecommend and Explain.

    A whole decision takes about 100 µs, less than handing it to a thread and back gains, so it runs on the event loop.
    Requests that are there already are decided one right after the other, since what a decision leaves in the caches
    serves the next one and not the calls between; nobody waits for company.

    Parameters
    ----------
    engine : decides
    models : score the candidates of placements that use a model
    shadow : follows the requests that a trial shall answer too
    log : where decisions go; an answer never waits for it
    clock : time for which answers are made
    """

    descriptor = pb.DESCRIPTOR.services_by_name["RecommendationService"]
    raw_methods = frozenset({"Recommend"})

    def __init__(self, engine: Engine, models: Models, shadow: Shadow, log: EventLog, clock: Clock) -> None:
        self._engine = engine
        self._models = models
        self._shadow = shadow
        self._log = log
        self._clock = clock
        self._turns = count()
        self._waiting: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()

    async def recommend(self, request: bytes) -> bytes:
        """Return `RecommendResponse` for `RecommendRequest`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._decide_waiting)
        self._waiting.append((request, answer))
        return await answer

    async def batch_recommend(self, request: pb.BatchRecommendRequest) -> AsyncIterator[pb.BatchRecommendResponse]:
        """Yield one response a request, in order; what is wrong with one request is said in its own response."""
        if not request.requests:
            raise required("requests")
        if len(request.requests) > _MAX_BATCH:
            raise out_of_range("requests", f"has {len(request.requests):,} entries; send at most {_MAX_BATCH:,}")
        for index, one in enumerate(request.requests):
            response = pb.BatchRecommendResponse(index=index)
            try:
                response.response.MergeFromString(self._decide(one.SerializeToString()))
            except EngineError as error:
                if is_bug(error):
                    raise
                response.error = f"{error.reason}: {error}"
            yield response

    async def explain(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        """Return how the decision comes about; nothing is logged."""
        if not request.HasField("request"):
            raise required("request")
        plan = self._engine.begin(request.request.SerializeToString(), self._clock.now_ms())
        actions, degraded = self._models.score(plan.model_version, plan.features)
        explained = pb.ExplainResponse.FromString(self._engine.explain(plan, actions, degraded))
        if actions is not None:
            traces = [trace.items for trace in explained.traces]
            effects.tell(traces, plan, partial(self._models.ask, plan.model_version))
        return explained

    def _decide_waiting(self) -> None:
        for _ in range(min(len(self._waiting), _DECISIONS_AT_ONCE)):
            request, answer = self._waiting.popleft()
            if answer.cancelled():
                continue
            try:
                answer.set_result(self._decide(request))
            except BaseException as error:  # noqa: BLE001 - a panic of the engine is a BaseException
                answer.set_exception(error)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._decide_waiting)

    def _decide(self, request: bytes) -> bytes:
        now_ms, started = self._clock.now_ms(), perf_counter()
        answer = self._models.decide(request, now_ms)
        response = answer.response
        if answer.shadowed:
            self._shadow.follow(request, now_ms, response, perf_counter() - started)
        if decision := answer.decision:
            self._log.append_later([NewRecord(RECORD_KIND_DECISION, answer.visitor_key, "", decision)], now_ms)
        self._measure(answer)
        return response

    def _measure(self, answer: Answer) -> None:
        for reason in answer.degraded:
            telemetry.DEGRADED.labels(reason).inc()
        if next(self._turns) % _STAGES_EVERY == 0:
            for stage, duration_us in answer.stage_us:
                telemetry.STAGE_SECONDS.labels(stage).observe(duration_us / 1e6)
