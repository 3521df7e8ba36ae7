"""A generated shop: 100,000 items, 200,000 visitors with ten events each, a bundle, and the snapshot of all that.

Its sources do not overlap: what visitors touch has an id that ten divides, what was also viewed is odd, what was also
bought is even. So a placement that asks for 400, 400 and 200 items has exactly 1,000 candidates.
`python bench/shop.py FOLDER` builds it; `shop()` returns one that is kept for this build of the engine.
"""

import ctypes
import gc
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import core_rs
from shopkeeper.v1 import item_pb2, placement_pb2, recommendation_service_pb2, record_pb2
from shopkeeper.v1.common_pb2 import Context, Money

ROOT: Final = Path(__file__).parent.parent
ITEMS: Final = 100_000
VISITORS: Final = 200_000
EVENTS_EACH: Final = 10
CANDIDATES: Final = 1_000
PAGE: Final = 50
PLACEMENT: Final = "bench"
NOW_MS: Final = 1_767_225_600_000
"""2026-01-01, the end of the shop's history."""

_SOURCES: Final = {"also_viewed": 400, "also_bought": 400, "popular": 200}
_NEIGHBOURS: Final = 64
_LAYERS: Final = (32, 32)
_ACTIONS: Final = ("view", "add_to_cart", "purchase")
_BUNDLE: Final = "bench-1"
_CHUNK: Final = 10_000
_HISTORY_MS: Final = 90 * 86_400_000

Record = tuple[int, int, int, bytes]


def shop() -> Path:
    """Return the data folder of the shop; it is built when the engine is another one than at the last build."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(Path(core_rs._native.__file__).read_bytes())  # noqa: SLF001 - its file, not its names
    kept = ROOT / "data" / "bench"
    folder = kept / digest.hexdigest()[:16]
    if not folder.exists():
        shutil.rmtree(kept, ignore_errors=True)
        print("building the shop", file=sys.stderr)
        build_apart(folder)
    return folder


def build_apart(folder: Path) -> dict[str, float]:
    """Build the shop in a process of its own; return its measures."""
    output = subprocess.run([sys.executable, __file__, str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    measures: dict[str, float] = json.loads(output.stdout)
    return measures


def copy_of(source: Path, target: Path) -> None:
    """Make `target` a data folder like `source`; only the log is copied, for the rest is never written again."""
    shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
    (target / "log.sqlite").unlink()
    shutil.copy(source / "log.sqlite", target)


def load(folder: Path) -> core_rs.Engine:
    """Return an engine with the shop's state."""
    engine = core_rs.Engine()
    engine.load_bundle(str(folder / "bundles" / _BUNDLE))
    engine.load_snapshot(str(next((folder / "snapshots").iterdir())))
    return engine


def ranker_file(folder: Path) -> Path:
    """Return the shop's model."""
    return folder / "bundles" / _BUNDLE / "ranker.onnx"


def visitor_id(number: int) -> str:
    """Return the id of a visitor of the shop."""
    return f"visitor-{number:07d}"


def request(number: int) -> recommendation_service_pb2.RecommendRequest:
    """Return the request of a visitor for `PAGE` of `CANDIDATES` items."""
    return recommendation_service_pb2.RecommendRequest(
        context=Context(visitor_id=visitor_id(number), session_id=f"session-{number:07d}"),
        placements=[recommendation_service_pb2.PlacementRequest(placement_id=PLACEMENT)],
    )


def build(folder: Path) -> dict[str, float]:
    """Write the shop to `folder`; return resident and counted bytes of items and visitors, and seconds."""
    engine = core_rs.Engine()
    bundle = _write_bundle(folder / "bundles" / _BUNDLE)
    next(_items()), next(_events())  # what Python takes for a chunk it takes here
    empty = _resident_bytes()
    offset = _apply(engine, 0, _items())
    items = _resident_bytes()
    started = time.perf_counter()
    offset = _apply(engine, offset, _events())
    apply_s = time.perf_counter() - started
    visitors = _resident_bytes()
    engine.load_bundle(str(bundle))
    offset = _apply(engine, offset, iter([[_placement(), _activation()]]))
    path = folder / "snapshots" / f"{offset:020d}.snapshot"
    path.parent.mkdir(parents=True)
    started = time.perf_counter()
    engine.save_snapshot(str(path))
    save_s = time.perf_counter() - started
    _write_log(folder / "log.sqlite", offset)
    return {
        "item_resident_bytes": (items - empty) / ITEMS,
        "visitor_resident_bytes": (visitors - items) / VISITORS,
        "apply_events_per_s": VISITORS * EVENTS_EACH / apply_s,
        "snapshot_save_s": save_s,
        "snapshot_bytes": path.stat().st_size,
        **engine.stats(),
    }


def _apply(engine: core_rs.Engine, offset: int, chunks: Iterator[list[tuple[int, int, bytes]]]) -> int:
    for chunk in chunks:
        records: list[Record] = [(offset + place, *record) for place, record in enumerate(chunk, start=1)]
        engine.apply(records)
        offset += len(chunk)
    return offset


def _items() -> Iterator[list[tuple[int, int, bytes]]]:
    for first in range(0, ITEMS, _CHUNK):
        yield [
            (record_pb2.RECORD_KIND_ITEM, NOW_MS - _HISTORY_MS, _item(number))
            for number in range(first, first + _CHUNK)
        ]


def _item(number: int) -> bytes:
    item = item_pb2.Item(
        item_id=_item_id(number),
        title=f"Article number {number} of the generated shop",
        category_path=[f"Department {number % 20}", f"Aisle {number % 200}", f"Shelf {number % 2_000}"],
        brand=f"Brand {number % 1_000}",
        price=Money(currency_code="EUR", units=1 + number % 100, nanos=990_000_000),
        stock_quantity=100,
    )
    item.release_time.FromMilliseconds(NOW_MS - _HISTORY_MS - number % 365 * 86_400_000)
    change = record_pb2.ItemChange(item=item)
    return change.SerializeToString()


def _item_id(number: int) -> str:
    return f"item-{number:06d}"


def _events() -> Iterator[list[tuple[int, int, bytes]]]:
    """Yield events in order of time; each visitor touches ten different items, a few of which are in fashion."""
    random = np.random.default_rng(0)
    touched = ITEMS // 10
    fashion = 1.0 / np.arange(1, touched + 1)
    starts = random.choice(touched, VISITORS, p=fashion / fashion.sum())
    types = np.array([3, 3, 3, 4, 3, 6, 3, 4, 3, 6], np.int32)
    for turn in range(EVENTS_EACH):
        items = (starts + turn * 37) % touched * 10
        for first in range(0, VISITORS, _CHUNK):
            visitors = range(first, first + _CHUNK)
            age = (EVENTS_EACH - turn) * _HISTORY_MS // (EVENTS_EACH + 1)
            time_ms = np.full(_CHUNK, NOW_MS - age, np.int64) + np.arange(_CHUNK)
            texts = [""] * _CHUNK
            rows = core_rs.encode_events(
                event_ids=[f"event-{turn}-{visitor}" for visitor in visitors],
                event_types=np.full(_CHUNK, types[turn], np.int32),
                time_ms=time_ms,
                visitor_ids=[visitor_id(visitor) for visitor in visitors],
                session_ids=texts,
                store_ids=texts,
                queries=texts,
                line_offsets=np.arange(_CHUNK + 1, dtype=np.int64),
                item_ids=[_item_id(item) for item in items[first : first + _CHUNK].tolist()],
                quantities=np.ones(_CHUNK, np.int32),
                price_micros=np.full(_CHUNK, 9_990_000, np.int64),
                currency="EUR",
            )
            yield [
                (record_pb2.RECORD_KIND_EVENT, time, payload)
                for (_, _, payload), time in zip(rows, time_ms.tolist(), strict=True)
            ]


def _placement() -> tuple[int, int, bytes]:
    sources = [placement_pb2.SourceUse(source=name, limit=limit) for name, limit in _SOURCES.items()]
    placement = placement_pb2.Placement(placement_id=PLACEMENT, sources=sources, use_model=True, page_size=PAGE)
    change = record_pb2.DocumentChange(placement=placement)
    return record_pb2.RECORD_KIND_DOCUMENT, NOW_MS, change.SerializeToString()


def _activation() -> tuple[int, int, bytes]:
    return record_pb2.RECORD_KIND_ACTIVATION, NOW_MS, record_pb2.Activation(version=_BUNDLE).SerializeToString()


def _write_bundle(folder: Path) -> Path:
    """Write neighbour lists and a small network of random weights."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    texts = [_item_id(number).encode() for number in range(ITEMS)]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.uint32)
    save_file({"bytes": np.frombuffer(b"".join(texts), np.uint8), "offsets": offsets}, folder / "items.safetensors")
    odd = np.arange(1, ITEMS, 2, dtype=np.uint32)
    even = np.arange(0, ITEMS, 2, dtype=np.uint32)
    for name, pool in {"also_viewed": odd, "also_bought": even[even % 10 != 0]}.items():
        save_file(_lists(pool, random), folder / f"{name}.safetensors")
    _write_ranker(folder / "ranker.onnx", random)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    manifest = {
        "version": _BUNDLE,
        "schema_hash": core_rs.schema_hash(),
        "features": core_rs.feature_names(),
        "actions": _ACTIONS,
        "opset": 17,
        "create_ms": NOW_MS,
        "train_start_ms": NOW_MS - _HISTORY_MS,
        "train_end_ms": NOW_MS,
        "event_count": VISITORS * EVENTS_EACH,
        "visitor_count": VISITORS,
        "item_count": ITEMS,
        "seed": 1,
        "consent_basis": "generated",
        "files": files,
        "metrics": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _lists(pool: NDArray[np.uint32], random: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """Return `_NEIGHBOURS` different members of `pool` for every item, best first."""
    start = random.integers(len(pool), size=(ITEMS, 1))
    step = random.integers(1, len(pool) // _NEIGHBOURS, size=(ITEMS, 1))
    place = (start + step * np.arange(_NEIGHBOURS)) % len(pool)
    scores = np.sort(random.random((ITEMS, _NEIGHBOURS), np.float32), axis=1)[:, ::-1]
    return {
        "offsets": np.arange(0, ITEMS * _NEIGHBOURS + 1, _NEIGHBOURS, dtype=np.uint32),
        "neighbours": pool[place].ravel(),
        "scores": np.ascontiguousarray(scores).ravel(),
    }


def _write_ranker(path: Path, random: np.random.Generator) -> None:
    widths: Sequence[int] = (len(core_rs.feature_names()), *_LAYERS, len(_ACTIONS))
    nodes, weights = [], []
    flow = "features"
    for layer, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        values = random.normal(scale=wide**-0.5, size=(wide, narrow)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"bias{layer}"))
        last = layer == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [flow, f"weight{layer}", f"bias{layer}"], [f"sum{layer}"]))
        flow = "actions" if last else f"hidden{layer}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"sum{layer}"], [flow]))
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", widths[0]])],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", widths[-1]])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _write_log(path: Path, offset: int) -> None:
    """Write a log that ends at `offset` and no longer holds what is before."""
    from server.adapters.sqlite_log import SqliteLog  # noqa: PLC0415 - only where the shop is built

    SqliteLog(path).close()
    with closing(sqlite3.connect(path)) as log, log:
        row = (offset, *_activation()[:2], "", "", _activation()[2])
        log.execute(
            'INSERT INTO records ("offset", kind, time_ms, key, record_id, payload) VALUES (?, ?, ?, ?, ?, ?)', row
        )


def _resident_bytes() -> int:
    """Return the bytes in memory that are in use: what is free goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
