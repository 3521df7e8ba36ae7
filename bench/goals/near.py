"""NEAR: the best 1,000 of a million vectors by the nearest clusters, against the scan of all of them."""

import time
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any, Final

import numpy as np
from measure import Row, fastest, interleave, require
from numpy.typing import NDArray

from core_rs import VectorIndex
from trainers.clusters import LEAST_ITEMS, clustered

_DIMENSIONS: Final = 64
_CENTRES: Final = 2_000
_QUERIES: Final = 50
_RUNS: Final = 15
_LEAST_RECALL: Final = 0.9

Search = Callable[[NDArray[np.float32]], NDArray[Any]]


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return a row for each length of the list, after recall was measured."""
    vectors, queries = _shop()
    note(f"clustering {len(vectors):,} vectors")
    started = time.process_time()
    found = clustered(vectors, 0)
    clustering_s = time.process_time() - started
    index = VectorIndex(vectors, clusters=(found["centres"], found["clusters"]))
    rows = []
    for k in (200, 1_000):
        near = lambda query, k=k: index.search_near(query, k)[0]  # noqa: E731
        whole = lambda query, k=k: index.search(query[None], k)[0][0]  # noqa: E731
        recall = float(np.mean([np.isin(near(query), whole(query)).mean() for query in queries]))
        note(f"best {k:,}: recall {recall:.3f}")
        require(recall >= _LEAST_RECALL, f"recall of the best {k:,} is {recall:.3f}")
        turns = (fastest(call, cycle(queries)) for call in (near, whole))
        compared = interleave(*turns, _RUNS, lambda _: None)
        detail = {"items": len(vectors), "recall": recall, "clustering_cpu_s": clustering_s}
        rows.append(compared.row(f"NEAR best {k:,}", "us", "scan of all", higher_is_better=False, **detail))
    return rows


def _shop() -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return unit vectors around many centres, and queries near items."""
    random = np.random.default_rng(0)
    noise = partial(random.standard_normal, dtype=np.float32)
    vectors = noise((_CENTRES, _DIMENSIONS))[random.integers(_CENTRES, size=LEAST_ITEMS)]
    vectors += noise(vectors.shape)
    queries = vectors[random.choice(len(vectors), _QUERIES, replace=False)]
    queries += np.float32(0.5) * noise(queries.shape)
    return _unit(vectors), list(_unit(queries))


def _unit(table: NDArray[np.float32]) -> NDArray[np.float32]:
    return table / np.linalg.norm(table, axis=1, keepdims=True)
