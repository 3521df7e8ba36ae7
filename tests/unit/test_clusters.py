"""Clusters of item vectors: where items are many, near ones are found by looking at few."""

import numpy as np
import pytest

from core_rs import InvalidRequestError, VectorIndex
from trainers import clusters as module
from trainers.clusters import clustered


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    around = rng.standard_normal((40, 16)).astype(np.float32)[rng.integers(40, size=5_000)]
    found = around + 0.3 * rng.standard_normal((5_000, 16)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_few_items_have_no_clusters(vectors):
    assert list(clustered(vectors, 0)) == ["vectors"]


def test_near_items_are_found_in_the_nearest_clusters(vectors, monkeypatch):
    monkeypatch.setattr(module, "LEAST_ITEMS", 5_000)
    found, again = clustered(vectors, 0), clustered(vectors, 0)
    assert all(np.array_equal(found[name], again[name]) for name in ("centres", "clusters"))
    index = VectorIndex(vectors, clusters=(found["centres"], found["clusters"]))
    recalls = []
    for query in vectors[:50]:
        near, scores = index.search_near(query, 50, exact=True)
        items, exact = index.search(query[None], 50, exact=True)
        recalls.append(np.isin(items[0], near).mean())
        assert (np.diff(scores) <= 0).all()
        assert scores[0] == exact[0, 0]
    assert np.mean(recalls) > 0.9


def test_clusters_that_do_not_fit_are_refused(vectors):
    centres, numbers = np.zeros((2, 16), np.float32), np.zeros(5_000, np.uint32)
    with pytest.raises(InvalidRequestError, match="name the centre of each item"):
        VectorIndex(vectors, clusters=(centres, numbers + 2))
    with pytest.raises(InvalidRequestError, match="queries have 3 dimensions"):
        VectorIndex(vectors, clusters=(centres, numbers)).search_near(np.zeros(3, np.float32), 5)
