"""Content vectors: near where words, categories and brand are the same, zeros where nothing is known."""

import numpy as np
import polars as pl

from trainers.dataset import Dataset
from trainers.lsa_vectors import LsaVectors

TITLES = ["red shoes", "blue shoes", "green tea", "black tea", None]
PATHS = [["wear", "shoes"], ["wear", "shoes"], ["food", "tea"], ["food", "tea"], None]


def shop(**columns) -> Dataset:
    items = pl.DataFrame({"item_id": list("abcde"), **columns})
    event = {"event_id": ["e"], "visitor_id": ["v"], "item_id": ["a"], "event_type": ["view"], "time_ms": [1]}
    return Dataset.from_frames(pl.DataFrame(event), items)


def test_like_items_are_near_and_unknown_ones_nowhere():
    vectors = LsaVectors().fit(shop(title=TITLES, category_path=PATHS)).vectors_
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > likeness[0, 2] + 0.3
    assert likeness[2, 3] > likeness[1, 3] + 0.3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 1, 0], atol=1e-6)
    assert vectors.dtype == np.float32


def test_the_vectors_of_the_shop_count_too():
    given = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.0, 1.0], None]
    vectors = LsaVectors().fit(shop(vector=given)).vectors_
    assert (vectors[0] @ vectors[2], vectors[1] @ vectors[3]) > (0.9, 0.9)
    assert abs(vectors[0] @ vectors[1]) < 0.1
    assert not vectors[4].any()


def test_a_shop_that_says_nothing_of_its_items_has_zeros():
    vectors = LsaVectors().fit(shop()).vectors_
    assert len(vectors) == 5
    assert not vectors.any()


def test_wide_terms_are_brought_to_the_width():
    rng = np.random.default_rng(0)
    titles = [" ".join(f"w{n}" for n in rng.integers(0, 40, 6)) for _ in range(5)]
    whole = LsaVectors(n_factors=5).fit(shop(title=titles)).vectors_
    few = LsaVectors(n_factors=2).fit(shop(title=titles)).vectors_
    assert (whole.shape, few.shape) == ((5, 5), (5, 2))
