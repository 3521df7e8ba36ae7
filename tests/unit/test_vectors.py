"""Nearest items of the engine against a plain product in NumPy."""

import numpy as np
import pytest

from core_rs import InvalidRequestError, VectorIndex

NOBODY = 2**32 - 1


def table(rows, width, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


@pytest.mark.parametrize(("items", "width"), [(5, 3), (300, 17), (5_000, 64)])
def test_the_exact_answer_is_that_of_numpy(items, width):
    vectors, queries = table(items, width), table(11, width, seed=1)
    found, scores = VectorIndex(vectors).search(queries, 20, exact=True)
    products = queries @ vectors.T
    expected = np.argsort(-products, axis=1, kind="stable")[:, : min(20, items)]
    assert np.array_equal(found, expected)
    assert np.allclose(scores, np.take_along_axis(products, expected, axis=1), atol=1e-4)


def test_bytes_find_nearly_all_and_every_set_of_instructions_the_same():
    vectors, queries = table(20_000, 64), table(9, 64, seed=1)
    index = VectorIndex(vectors)
    found, _ = index.search(queries, 500)
    best, _ = index.search(queries, 500, exact=True)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(found, best, strict=True)]) > 0.97
    plain = VectorIndex(vectors, instructions="scalar").search(queries, 500)
    assert all(np.array_equal(*pair) for pair in zip(index.search(queries, 500), plain, strict=True))


def test_only_what_is_allowed_is_found_and_places_stay_empty():
    index = VectorIndex(table(40, 8))
    allowed = np.zeros(40, np.bool_)
    allowed[[3, 39]] = True
    items, scores = index.search(table(1, 8, seed=1), 4, allowed=allowed)
    assert set(items[0, :2]) == {3, 39}
    assert items[0, 2:].tolist() == [NOBODY, NOBODY]
    assert np.isneginf(scores[0, 2:]).all()


def test_what_does_not_fit_is_refused():
    index = VectorIndex(table(40, 8))
    assert (len(index), index.instructions) == (40, VectorIndex(table(1, 1)).instructions)
    with pytest.raises(InvalidRequestError, match="not finite"):
        VectorIndex(np.full((1, 2), np.nan, np.float32))
    with pytest.raises(InvalidRequestError, match="no set of instructions"):
        VectorIndex(table(1, 2), instructions="mmx")
    with pytest.raises(InvalidRequestError, match="3 dimensions, the vectors 8"):
        index.search(table(1, 3), 1)
    with pytest.raises(InvalidRequestError, match="39 flags for 40 items"):
        index.search(table(1, 8), 1, allowed=np.ones(39, np.bool_))
