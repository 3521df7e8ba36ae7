"""G5: a whole decision in process, against one retrieval of `implicit` over as many items, both on one thread."""

import os
from collections.abc import Callable
from typing import Final

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy reads it

import numpy as np
import shop
from implicit.cpu.als import AlternatingLeastSquares
from measure import Row, fastest, interleave, require
from scipy.sparse import csr_matrix

import core_rs
from server.ranker import Ranker
from shopkeeper.v1.recommendation_service_pb2 import RecommendResponse

GOAL: Final = 8

_FACTORS: Final = 64
_ITERATIONS: Final = 3
_RUNS: Final = 15
_CALLS: Final = 20
_STRIDE: Final = 7_919
"""Steps between visitors that ask one after the other: nobody finds his state in the cache."""


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the row of G5 after the answers were checked."""
    source = shop.shop()
    engine, ranker = shop.load(source), shop.ranker(source)
    table = _table()
    note(f"fitting {_FACTORS} factors of {shop.VISITORS:,} visitors and {shop.ITEMS:,} items")
    peer = AlternatingLeastSquares(factors=_FACTORS, iterations=_ITERATIONS, num_threads=2, random_state=0)
    peer.fit(table, show_progress=False)
    peer.num_threads = 1
    _check(engine, ranker, peer, table)
    visitors = [number * _STRIDE % shop.VISITORS for number in range(_RUNS * _CALLS)]
    requests = (shop.request(visitor).SerializeToString() for visitor in visitors)
    rows = ((visitor, table[visitor]) for visitor in visitors)
    ours = fastest(lambda request: _decide(engine, ranker, request), requests, _CALLS)
    theirs = fastest(lambda row: peer.recommend(*row, N=shop.PAGE), rows, _CALLS)
    compared = interleave(ours, theirs, _RUNS, note)
    detail = {"goal": GOAL, "candidates": shop.CANDIDATES, "factors": _FACTORS}
    name = f"implicit ALS recommend(N={shop.PAGE})"
    return [compared.row("G5", "us", name, higher_is_better=False, **detail)]


def _table() -> csr_matrix:
    """Return what each visitor of the shop touched, of shape (visitors, items)."""
    items = np.concatenate(list(shop.touched_items()))
    visitors = np.tile(np.arange(shop.VISITORS), shop.EVENTS_EACH)
    return csr_matrix((np.ones(len(items), np.float32), (visitors, items)), (shop.VISITORS, shop.ITEMS))


def _decide(engine: core_rs.Engine, ranker: Ranker, request: bytes) -> bytes:
    plan = engine.begin(request, shop.NOW_MS)
    return engine.finish(plan, shop.actions_of(ranker, plan)).response


def _check(engine: core_rs.Engine, ranker: Ranker, peer: AlternatingLeastSquares, table: csr_matrix) -> None:
    """Require that both give `PAGE` items, and that ours ranked all candidates."""
    for visitor in range(0, shop.VISITORS, shop.VISITORS // 20):
        request = shop.request(visitor).SerializeToString()
        scored = len(engine.begin(request, shop.NOW_MS).features)
        require(scored == shop.CANDIDATES, f"{scored} candidates were scored, not {shop.CANDIDATES}")
        shown = RecommendResponse.FromString(_decide(engine, ranker, request)).slates[0].items
        found, _ = peer.recommend(visitor, table[visitor], N=shop.PAGE)
        require(len(shown) == len(found) == shop.PAGE, f"{len(shown)} and {len(found)} items came, not {shop.PAGE}")
