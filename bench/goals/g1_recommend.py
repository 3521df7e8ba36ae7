"""G1: whole Recommend over gRPC against the bare bytes echo of the same kind of server on the same core."""

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import shop
from load import Load, load, need_h2load
from measure import Row, interleave, quantile, require
from processes import ECHO_METHOD, SERVER_CORE, Server, running

from shopkeeper.v1.recommendation_service_pb2 import ExplainRequest
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

GOAL: Final = 0.35

_RUNS: Final = 9
_SECONDS: Final = 2.0
_CONNECTIONS: Final = 4
_STREAMS: Final = 16
_METHOD: Final = "/shopkeeper.v1.RecommendationService/Recommend"
_ECHO_BODY: Final = os.urandom(1_024)
_STAGE_CALLS: Final = 3_000
_SIZE_TOLERANCE: Final = 0.1


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the row of G1 after the answers were checked."""
    need_h2load()
    source = shop.shop()
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        shop.copy_of(source, Path(name))
        with running("echo", core=SERVER_CORE) as echo, running("replica", name, "1", core=SERVER_CORE) as replica:
            response_bytes = _check(replica)
            row = _compare(replica, echo, response_bytes, note)
    note("stages in process")
    return [Row(**{**vars(row), "detail": {**row.detail, **_stages(source)}})]


def _check(replica: Server) -> float:
    """Require that real calls score exactly `CANDIDATES` items and return `PAGE`; return the bytes of an answer."""
    with grpc.insecure_channel(replica.address) as channel:
        stub = RecommendationServiceStub(channel)
        sizes = []
        for number in range(_RUNS * _CONNECTIONS):
            request = shop.request(number)
            answer, call = stub.Recommend.with_call(request, timeout=5)
            require(call.code() is grpc.StatusCode.OK, f"Recommend ended with {call.code()}")
            shown = {item.item_id for item in answer.slates[0].items}
            require(len(shown) == shop.PAGE, f"{len(shown)} items came back, not {shop.PAGE}")
            require(bool(answer.model_version) and not answer.degraded, f"degraded: {list(answer.degraded)}")
            stages = stub.Explain(ExplainRequest(request=request), timeout=5).traces[0].stages
            scored = next(stage.out_count for stage in stages if stage.name == "features")
            require(scored == shop.CANDIDATES, f"{scored} candidates were scored, not {shop.CANDIDATES}")
            sizes.append(answer.ByteSize())
    return statistics.mean(sizes)


def _compare(replica: Server, echo: Server, response_bytes: float, note: Callable[[str], None]) -> Row:
    ours: list[Load] = []
    peer: list[Load] = []
    turns = itertools.count()

    def recommend() -> float:
        first = next(turns) % _RUNS * _CONNECTIONS
        bodies = [shop.request(first + place).SerializeToString() for place in range(_CONNECTIONS)]
        ours.append(load(replica, _METHOD, bodies, _STREAMS, _SECONDS))
        require(
            abs(ours[-1].response_bytes / response_bytes - 1) < _SIZE_TOLERANCE,
            f"answers under load have {ours[-1].response_bytes:.0f} bytes, others {response_bytes:.0f}",
        )
        return ours[-1].calls_per_s

    def call_echo() -> float:
        peer.append(load(echo, ECHO_METHOD, [_ECHO_BODY] * _CONNECTIONS, _STREAMS, _SECONDS))
        return peer[-1].calls_per_s

    recommend(), call_echo()  # warm
    del ours[:], peer[:]
    row = interleave(recommend, call_echo, _RUNS, note).row("G1", "calls/s", "grpc.aio bare bytes echo")
    one = load(replica, _METHOD, [shop.request(0).SerializeToString()], 1, _SECONDS)
    one_echo = load(echo, ECHO_METHOD, [_ECHO_BODY], 1, _SECONDS)
    detail = {
        "goal": GOAL,
        "ratio of cpu": statistics.median(echo.cpu_us / own.cpu_us for own, echo in zip(ours, peer, strict=True)),
        **_summary("recommend", ours),
        **_summary("echo", peer),
        **_summary("recommend, 1 in flight", [one]),
        **_summary("echo, 1 in flight", [one_echo]),
        "response_bytes": response_bytes,
    }
    return Row(**{**vars(row), "detail": detail})


def _summary(name: str, loads: list[Load]) -> dict[str, float]:
    middle = {key: statistics.median(getattr(one, key) for one in loads) for key in ("cpu_us", "p50_ms", "p99_ms")}
    return {f"{name} {key}": value for key, value in middle.items()}


def _stages(source: Path) -> dict[str, float]:
    """Return the median microseconds of each part and stage of a decision, without gRPC, each for another visitor."""
    engine = shop.load(source)
    ranker = shop.ranker(source)
    times: dict[str, list[float]] = {}
    for number in range(_STAGE_CALLS):
        body = shop.request(number * 61 % shop.VISITORS).SerializeToString()
        moments = [time.perf_counter()]
        plan = engine.begin(body, shop.NOW_MS)
        moments.append(time.perf_counter())
        actions = shop.actions_of(ranker, plan)
        moments.append(time.perf_counter())
        answer = engine.finish(plan, actions)
        moments.append(time.perf_counter())
        parts = zip(("begin", "model", "finish"), itertools.pairwise(moments), strict=True)
        for name, taken_us in [*((name, (end - start) * 1e6) for name, (start, end) in parts), *answer.stage_us]:
            times.setdefault(name, []).append(taken_us)
    return {f"{name} us": quantile(values, 0.5) for name, values in times.items() if any(values)}
