"""A generated shop: 100,000 items, 200,000 visitors with ten events each, a bundle, and the snapshot of all that.

Its sources do not overlap: what visitors touch has an id that ten divides, what was also viewed is odd, what was also
bought is even. So a placement that asks for 400, 400 and 200 items has exactly 1,000 candidates.
`python bench/shop.py FOLDER` builds it; `shop()` returns one that is kept for this build of the engine.
"""

import ctypes
import gc
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import bundle as bundles
import numpy as np
from bundle import write_bundle
from measure import require
from numpy.typing import NDArray

import core_rs
from server.ranker import RANKER_FILE, Ranker, open_session
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
_BUNDLE: Final = "bench-1"
_CHUNK: Final = 10_000
_HISTORY_MS: Final = 90 * 86_400_000

Record = tuple[int, int, int, bytes]
NewRecord = tuple[int, int, bytes]
"""Record without its offset."""


def shop() -> Path:
    """Return the data folder of the shop; it is built when the engine is another one than at the last build."""
    digest = hashlib.sha256()
    for file in (__file__, bundles.__file__, core_rs._native.__file__):  # noqa: SLF001 - its file, not its names
        digest.update(Path(file).read_bytes())
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


def ranker(folder: Path) -> Ranker:
    """Return the shop's model as it serves."""
    return ranker_of(folder / "bundles" / _BUNDLE)


def ranker_of(bundle: Path) -> Ranker:
    """Return the model of a bundle as it serves."""
    return Ranker(open_session(bundle / RANKER_FILE), core_rs.Engine().load_bundle(str(bundle)))


def actions_of(ranker: Ranker, plan: core_rs.Plan) -> NDArray[np.float32]:
    """Return the actions of every candidate of a plan, shape (n, h)."""
    actions, reason = ranker.ask(plan.features)
    require(actions is not None, reason)
    return np.asarray(actions)


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
    written = write_bundle(folder / "bundles" / _BUNDLE, [item_id(number) for number in range(ITEMS)])
    next(item_records()), next(event_records())  # what Python takes for a chunk it takes here
    empty = resident_bytes()
    offset = apply(engine, 0, item_records())
    items = resident_bytes()
    started = time.perf_counter()
    offset = apply(engine, offset, event_records())
    apply_s = time.perf_counter() - started
    visitors = resident_bytes()
    engine.load_bundle(str(written))
    offset = apply(engine, offset, [[placement(), activation(_BUNDLE)]])
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


def apply(engine: core_rs.Engine, offset: int, chunks: Iterable[list[NewRecord]]) -> int:
    """Apply records after `offset`; return the offset of the last one."""
    for chunk in chunks:
        records: list[Record] = [(offset + place, *record) for place, record in enumerate(chunk, start=1)]
        engine.apply(records)
        offset += len(chunk)
    return offset


def item_records(count: int = ITEMS) -> Iterator[list[NewRecord]]:
    """Yield the items of a shop, chunk by chunk."""
    for first in range(0, count, _CHUNK):
        yield [
            (record_pb2.RECORD_KIND_ITEM, NOW_MS - _HISTORY_MS, _item(number))
            for number in range(first, first + _CHUNK)
        ]


def _item(number: int) -> bytes:
    item = item_pb2.Item(
        item_id=item_id(number),
        title=f"Article number {number} of the generated shop",
        category_path=[f"Department {number % 20}", f"Aisle {number % 200}", f"Shelf {number % 2_000}"],
        brand=f"Brand {number % 1_000}",
        price=Money(currency_code="EUR", units=1 + number % 100, nanos=990_000_000),
        stock_quantity=100,
    )
    item.release_time.FromMilliseconds(NOW_MS - _HISTORY_MS - number % 365 * 86_400_000)
    change = record_pb2.ItemChange(item=item)
    return change.SerializeToString()


def item_id(number: int) -> str:
    """Return the id of an item of a shop."""
    return f"item-{number:06d}"


def touched_items(items: int = ITEMS, visitors: int = VISITORS) -> Iterator[NDArray[np.int64]]:
    """Yield the item of each visitor's event, turn by turn; ten different ones, a few of which are in fashion."""
    random = np.random.default_rng(0)
    touched = items // 10
    fashion = 1.0 / np.arange(1, touched + 1)
    starts = random.choice(touched, visitors, p=fashion / fashion.sum())
    for turn in range(EVENTS_EACH):
        yield (starts + turn * 37) % touched * 10


def event_records(items: int = ITEMS, visitors: int = VISITORS) -> Iterator[list[NewRecord]]:
    """Yield the events of a shop in order of time, chunk by chunk."""
    types = np.array([3, 3, 3, 4, 3, 6, 3, 4, 3, 6], np.int32)
    for turn, touched in enumerate(touched_items(items, visitors)):
        for first in range(0, visitors, _CHUNK):
            some = range(first, first + _CHUNK)
            age = (EVENTS_EACH - turn) * _HISTORY_MS // (EVENTS_EACH + 1)
            time_ms = np.full(_CHUNK, NOW_MS - age, np.int64) + np.arange(_CHUNK)
            texts = [""] * _CHUNK
            rows = core_rs.encode_events(
                event_ids=[f"event-{turn}-{visitor}" for visitor in some],
                event_types=np.full(_CHUNK, types[turn], np.int32),
                time_ms=time_ms,
                visitor_ids=[visitor_id(visitor) for visitor in some],
                session_ids=texts,
                store_ids=texts,
                queries=texts,
                line_offsets=np.arange(_CHUNK + 1, dtype=np.int64),
                item_ids=[item_id(item) for item in touched[first : first + _CHUNK].tolist()],
                quantities=np.ones(_CHUNK, np.int32),
                price_micros=np.full(_CHUNK, 9_990_000, np.int64),
                currency="EUR",
            )
            yield [
                (record_pb2.RECORD_KIND_EVENT, time, payload)
                for (_, _, payload), time in zip(rows, time_ms.tolist(), strict=True)
            ]


def placement(limits: Mapping[str, int] = _SOURCES) -> NewRecord:
    """Return the record of the placement that asks sources for so many items each."""
    sources = [placement_pb2.SourceUse(source=name, limit=limit) for name, limit in limits.items()]
    placement = placement_pb2.Placement(placement_id=PLACEMENT, sources=sources, use_model=True, page_size=PAGE)
    change = record_pb2.DocumentChange(placement=placement)
    return record_pb2.RECORD_KIND_DOCUMENT, NOW_MS, change.SerializeToString()


def activation(version: str) -> NewRecord:
    """Return the record by which a bundle begins to serve."""
    return record_pb2.RECORD_KIND_ACTIVATION, NOW_MS, record_pb2.Activation(version=version).SerializeToString()


def _write_log(path: Path, offset: int) -> None:
    """Write a log that ends at `offset` and no longer holds what is before."""
    from server.adapters.log_rows import INSERT, row_of  # noqa: PLC0415 - only where the shop is built
    from server.adapters.sqlite_log import SqliteLog  # noqa: PLC0415
    from server.ports import NewRecord  # noqa: PLC0415

    SqliteLog(path).close()
    with closing(sqlite3.connect(path)) as log, log:
        kind, time_ms, payload = activation(_BUNDLE)
        log.execute(INSERT, row_of(NewRecord(kind, "", "", payload), time_ms))
        log.execute('UPDATE records SET "offset" = ?', (offset,))


def resident_bytes() -> int:
    """Return the bytes in memory that are in use: what is free goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(build(Path(sys.argv[1]))))
