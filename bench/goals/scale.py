"""SCALE: a million items with vectors and a million visitors in one engine, and a bundle that takes over meanwhile.

`python -m goals.scale FOLDER`, in the folder of benchmarks, is the process that holds them.
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

import shop
from bundle import write_bundle
from measure import Row, quantile, require

import core_rs
from server.ranker import Ranker
from shopkeeper.v1.recommendation_service_pb2 import RecommendResponse

_ITEMS: Final = 1_000_000
_VISITORS: Final = 1_000_000
_DIMENSIONS: Final = 64
_NEIGHBOURS: Final = 16
_SOURCES: Final = {"also_viewed": 400, "similar_content": 400, "popular": 200}
_QUIET_S: Final = 10.0
_SNAPSHOTS: Final = 3
_MEMORY_GIB: Final = 12.0
_ACTIVATION_S: Final = 10.0


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return memory, seconds of snapshots, and those of an activation with the pauses of answers meanwhile."""
    note(f"building {_ITEMS:,} items with {_DIMENSIONS} numbers each, {_VISITORS:,} visitors")
    root = shop.ROOT / "data"
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        command = [sys.executable, "-m", "goals.scale", str(folder)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    finally:
        shutil.rmtree(folder)
    found = json.loads(output.stdout)
    require(not found["failed"], f"{found['failed']} answers failed, e.g. {found['fault']}")
    pauses = {name: found[name] for name in found if name.endswith("_ms")}
    snapshot = {name: value for name, value in found.items() if name.startswith("snapshot_")}
    return [
        _against("SCALE memory", found["peak_gib"], "GiB", _MEMORY_GIB, {"resident_gib": found["resident_gib"]}),
        Row("SCALE visitor", found["visitor_bytes"], "bytes/visitor", detail={"count": _VISITORS}),
        Row("SCALE item", found["item_bytes"], "bytes/item", detail={"count": _ITEMS, **_bundle_detail(found)}),
        Row("SCALE snapshot", found["snapshot_save_s"], "s", runs=_SNAPSHOTS, detail=snapshot),
        _against("SCALE activation", found["activation_s"], "s", _ACTIVATION_S, pauses | {"answers": found["answers"]}),
    ]


def _against(name: str, value: float, unit: str, limit: float, detail: Mapping[str, object]) -> Row:
    return Row(name, value, unit, "limit", limit, limit / value, detail=detail)


def _bundle_detail(found: Mapping[str, float]) -> dict[str, float]:
    return {"bundle_bytes": found["bundle_bytes"], "dimensions": _DIMENSIONS, "neighbours": 2 * _NEIGHBOURS}


class _Asker(threading.Thread):
    """Visitor after visitor asks for a slate until `stop` is set.

    Attributes
    ----------
    ends_s : moments at which an answer was there
    versions : bundle that gave each answer; the text of the fault where it failed
    """

    def __init__(self, engine: core_rs.Engine, rankers: Mapping[str, Ranker]) -> None:
        super().__init__()
        self.engine, self.rankers = engine, rankers
        self.stop = threading.Event()
        self.ends_s: list[float] = []
        self.versions: list[str] = []
        self.faults: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            body = shop.request(len(self.ends_s) * 7_919 % _VISITORS).SerializeToString()
            try:
                self.versions.append(self._ask(body))
            except Exception as error:  # noqa: BLE001 - whatever it is, it counts
                self.faults.append(repr(error))
            self.ends_s.append(time.perf_counter())

    def _ask(self, body: bytes) -> str:
        plan = self.engine.begin(body, shop.NOW_MS)
        actions = shop.actions_of(self.rankers[plan.model_version], plan)
        answer = RecommendResponse.FromString(self.engine.finish(plan, actions).response)
        shown = len(answer.slates[0].items)
        require(shown == shop.PAGE and not answer.degraded, f"{shown} items, degraded by {list(answer.degraded)}")
        return plan.model_version

    def pauses_ms(self, start_s: float, end_s: float) -> list[float]:
        """Return the milliseconds between one answer and the next of those that touch a stretch of time."""
        turns = pairwise(self.ends_s)
        return [(after - before) * 1e3 for before, after in turns if after > start_s and before < end_s]


def _hold(folder: Path) -> dict[str, object]:
    ids = [shop.item_id(number) for number in range(_ITEMS)]
    options = {"neighbours": _NEIGHBOURS, "dimensions": _DIMENSIONS}
    bundles = [write_bundle(folder / f"bundle-{seed}", ids, seed=seed, **options) for seed in (1, 2)]
    del ids
    engine = core_rs.Engine()
    next(shop.item_records()), next(shop.event_records())  # what Python takes for a chunk it takes here
    empty = shop.resident_bytes()
    offset = shop.apply(engine, 0, shop.item_records(_ITEMS))
    items = shop.resident_bytes()
    offset = shop.apply(engine, offset, shop.event_records(_ITEMS, _VISITORS))
    visitors = shop.resident_bytes()
    engine.load_bundle(str(bundles[0]))
    records = [shop.placement(_SOURCES), shop.activation(bundles[0].name)]
    shop.apply(engine, offset, [records])
    bundle_bytes = shop.resident_bytes() - visitors
    return {
        "item_bytes": (items - empty) / _ITEMS,
        "visitor_bytes": (visitors - items) / _VISITORS,
        "bundle_bytes": bundle_bytes / _ITEMS,
        **_activate(engine, bundles),
        **_snapshots(engine, folder / "snapshot"),
        "resident_gib": shop.resident_bytes() / 2**30,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _activate(engine: core_rs.Engine, bundles: list[Path]) -> dict[str, object]:
    """Return what answers meet while the second bundle takes the place of the first."""
    old, new = (path.name for path in bundles)
    asker = _Asker(engine, {path.name: shop.ranker_of(path) for path in bundles})
    asker.start()
    time.sleep(_QUIET_S)
    moments, cpu_s = [time.perf_counter()], []
    for step in (
        lambda: engine.load_bundle(str(bundles[1])),
        lambda: shop.apply(engine, engine.offset, [[shop.activation(new)]]),
        lambda: engine.unload_bundle(old),
    ):
        cpu_s.append(_seconds(step)[1])
        moments.append(time.perf_counter())
    time.sleep(1.0)
    asker.stop.set()
    asker.join()
    require({old, new} == set(asker.versions), f"answers came from {sorted(set(asker.versions))}")
    quiet = asker.pauses_ms(moments[0] - _QUIET_S / 2, moments[0])
    found: dict[str, float] = {}
    for name, cpu, (start, end) in zip(("load", "switch", "unload"), cpu_s, pairwise(moments), strict=True):
        found[f"{name}_ms"], found[f"{name}_cpu_ms"] = (end - start) * 1e3, cpu * 1e3
        found[f"longest_pause_{name}_ms"] = max(asker.pauses_ms(start, end))
    return {
        "activation_s": moments[2] - moments[0],
        **found,
        "longest_pause_before_ms": max(quiet),
        "pause_before_p50_ms": quantile(quiet, 0.5),
        "pause_before_p99_ms": quantile(quiet, 0.99),
        "answers": len(asker.versions),
        "failed": len(asker.faults),
        "fault": next(iter(asker.faults), ""),
    }


def _snapshots(engine: core_rs.Engine, path: Path) -> dict[str, float]:
    """Return the median seconds to save, and to load into a new engine."""
    saves, loads = [], []
    for _ in range(_SNAPSHOTS):
        saves.append(_seconds(lambda: engine.save_snapshot(str(path))))
        loads.append(_seconds(lambda: core_rs.Engine().load_snapshot(str(path))))
    (save_s, save_cpu_s), (load_s, load_cpu_s) = (
        map(statistics.median, zip(*runs, strict=True)) for runs in (saves, loads)
    )
    return {
        "snapshot_save_s": save_s,
        "snapshot_save_cpu_s": save_cpu_s,
        "snapshot_load_s": load_s,
        "snapshot_load_cpu_s": load_cpu_s,
        "snapshot_mib": path.stat().st_size / 2**20,
    }


def _seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that passed, and those that this thread had a processor."""
    started, cpu_started = time.perf_counter(), time.thread_time()
    work()
    return time.perf_counter() - started, time.thread_time() - cpu_started


if __name__ == "__main__":
    print(json.dumps(_hold(Path(sys.argv[1]))))
