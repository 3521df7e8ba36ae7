"""START: from the start of the process to the first answer, with the snapshot of the whole shop."""

import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc
import shop
from measure import Row, require

import core_rs
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub

_RUNS: Final = 3
_PATIENCE_S: Final = 120.0


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the seconds of `shopkeeper serve` to its first answer, and those of saving and loading the snapshot."""
    source = shop.shop()
    snapshot = next((source / "snapshots").iterdir())
    starts_s = []
    for _ in range(_RUNS):
        starts_s.append(_start_s(source))
        note(f"first answer after {starts_s[-1]:.2f} s")
    save_s, load_s = _snapshot_s(snapshot)
    detail = {"snapshot_save_s": save_s, "snapshot_load_s": load_s, "snapshot_mib": snapshot.stat().st_size / 2**20}
    return [Row("START", statistics.median(starts_s), "s", spread=_range(starts_s), runs=_RUNS, detail=detail)]


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _start_s(source: Path) -> float:
    with tempfile.TemporaryDirectory(dir=source.parent) as name:
        shop.copy_of(source, Path(name))
        port = _free_port()
        command = [sys.executable, "-m", "server", "--port", str(port), "--data-dir", name]
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=shop.ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _first_answer(f"127.0.0.1:{port}", process)
            return time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _first_answer(address: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the server gave a full slate of the model."""
    options = (("grpc.initial_reconnect_backoff_ms", 20), ("grpc.max_reconnect_backoff_ms", 20))
    deadline = time.monotonic() + _PATIENCE_S
    with grpc.insecure_channel(address, options) as channel:
        recommend = RecommendationServiceStub(channel).Recommend
        while True:
            try:
                answer = recommend(shop.request(7), timeout=_PATIENCE_S)
                break
            except grpc.RpcError:
                require(process.poll() is None, f"the server ended with status {process.returncode}")
                require(time.monotonic() < deadline, f"no answer within {_PATIENCE_S:.0f} s")
                time.sleep(0.01)
    require(bool(answer.model_version), "the first answer is not the model's")
    require(len(answer.slates[0].items) == shop.PAGE, "the first answer is not full")


def _snapshot_s(path: Path) -> tuple[float, float]:
    """Return the median seconds to save and to load."""
    engine = core_rs.Engine()
    saves_s, loads_s = [], []
    with tempfile.TemporaryDirectory(dir=path.parents[1]) as name:
        for _ in range(_RUNS):
            loads_s.append(_seconds(lambda: engine.load_snapshot(str(path))))
            saves_s.append(_seconds(lambda: engine.save_snapshot(str(Path(name) / path.name))))
    return statistics.median(saves_s), statistics.median(loads_s)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
