"""G2: the best 1,000 of 100,000 vectors of 64 dimensions, query by query, against faiss IndexFlatIP and hnswlib."""

import os
from collections.abc import Callable
from itertools import cycle
from typing import Any, Final

os.environ["OMP_NUM_THREADS"] = "1"  # before faiss reads it

import faiss
import hnswlib
import numpy as np
from measure import Row, fastest, interleave, require
from numpy.typing import NDArray

from core_rs import InvalidRequestError, VectorIndex

_ITEMS: Final = 100_000
_CLUSTERS: Final = 2_000
_DIMENSIONS: Final = 64
_K: Final = 1_000
_QUERIES: Final = 200
_RUNS: Final = 15
_RECALL: Final = 0.95
_LEAST_RECALL: Final = {"bytes": 0.975, "exact": 0.9999}
_EF: Final = (1_000, 1_200, 1_500, 2_000, 3_000, 4_000)

Search = Callable[[NDArray[np.float32]], NDArray[Any]]


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return a row for each peer, set of instructions and mode, after recall was measured."""
    vectors, queries = _shop()
    flat = faiss.IndexFlatIP(_DIMENSIONS)
    flat.add(vectors)
    truth = np.concatenate([flat.search(query, _K)[1] for query in queries])
    graph, graph_recall = _graph(vectors, queries, truth, note)
    peers = {
        "faiss IndexFlatIP": (lambda query: flat.search(query, _K)[1], 1.0),
        "hnswlib": (lambda query: graph.knn_query(query, _K)[0], graph_recall),
    }
    rows = []
    for instructions in _sets(vectors):
        index = VectorIndex(vectors, instructions=instructions)
        for mode, least in _LEAST_RECALL.items():
            ours = lambda query, mode=mode, index=index: index.search(query, _K, exact=mode == "exact")[0]  # noqa: E731
            recall = _recall(ours, queries, truth)
            require(recall >= least, f"recall of {mode} with {instructions} is {recall:.4f}")
            for peer, (search, peer_recall) in peers.items():
                name = f"G2 {mode} {instructions} / {peer.split()[0]}"
                note(name)
                turns = (fastest(call, cycle(queries)) for call in (ours, search))
                compared = interleave(*turns, _RUNS, lambda _: None)
                detail = {"items": _ITEMS, "k": _K, "recall": recall, "peer_recall": peer_recall, "ef": graph.ef}
                rows.append(compared.row(name, "us", peer, higher_is_better=False, **detail))
    return rows


def _shop() -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return unit vectors around 2,000 centres, and queries of shape (1, d) near items."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((_CLUSTERS, _DIMENSIONS))
    vectors = centres[random.integers(_CLUSTERS, size=_ITEMS)] + random.standard_normal((_ITEMS, _DIMENSIONS))
    queries = vectors[random.choice(_ITEMS, _QUERIES, replace=False)]
    queries = queries + 0.5 * random.standard_normal(queries.shape)
    unit = [table / np.linalg.norm(table, axis=1, keepdims=True) for table in (vectors, queries)]
    return unit[0].astype(np.float32), list(unit[1].astype(np.float32)[:, None, :])


def _sets(vectors: NDArray[np.float32]) -> list[str]:
    """Return the sets of instructions with registers that this processor has, the widest first."""
    has = []
    for name in ("avx512vnni", "avx2"):
        try:
            has.append(VectorIndex(vectors[:1], instructions=name).instructions)
        except InvalidRequestError:
            continue
    return has or [VectorIndex(vectors[:1]).instructions]


def _graph(
    vectors: NDArray[np.float32],
    queries: list[NDArray[np.float32]],
    truth: NDArray[np.int64],
    note: Callable[[str], None],
) -> tuple[hnswlib.Index, float]:
    """Return the graph with the least effort that reaches a recall of 0.95, and its recall."""
    graph = hnswlib.Index("ip", _DIMENSIONS)
    graph.init_index(_ITEMS, ef_construction=200, M=16, random_seed=0)
    graph.add_items(vectors, num_threads=2)
    graph.set_num_threads(1)
    recall = 0.0
    for ef in _EF:
        graph.set_ef(ef)
        recall = _recall(lambda query: graph.knn_query(query, _K)[0], queries, truth)
        note(f"hnswlib ef {ef}: recall {recall:.3f}")
        if recall >= _RECALL:
            break
    return graph, recall


def _recall(search: Search, queries: list[NDArray[np.float32]], truth: NDArray[np.int64]) -> float:
    found = (np.isin(search(query)[0], best).mean() for query, best in zip(queries, truth, strict=True))
    return float(np.mean(list(found)))
