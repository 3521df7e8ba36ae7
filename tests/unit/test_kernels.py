"""Counting kernels against plain NumPy, SciPy and implicit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from implicit.nearest_neighbours import CosineRecommender
from numpy.typing import NDArray
from scipy import sparse

import core_rs

N_ROWS, N_ITEMS = 12, 17
MEASURES = ("cosine", "tf_idf", "lift", "jaccard", "conditional")
Pairs = tuple[NDArray[np.uint32], NDArray[np.uint32]]


def ids(size: int, count: int) -> st.SearchStrategy[NDArray[np.uint32]]:
    return arrays(np.uint32, size, elements=st.integers(0, count - 1), fill=st.nothing())


pairs = st.integers(1, 90).flatmap(lambda size: st.tuples(ids(size, N_ROWS), ids(size, N_ITEMS)))


def similarity(measure: str, table: NDArray[np.float64], shrink: float) -> NDArray[np.float64]:
    if measure == "tf_idf":
        table = table * np.log1p(table.shape[1] / np.maximum(table.sum(axis=1, keepdims=True), 1))
    dot = table.T @ table
    own = np.diag(dot)
    a, b = own[:, None], own[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = {
            "cosine": lambda: dot / (np.sqrt(a * b) + shrink),
            "tf_idf": lambda: dot / (np.sqrt(a * b) + shrink),
            "lift": lambda: dot / (a * b / len(table) + shrink),
            "jaccard": lambda: dot / (a + b - dot + shrink),
            "conditional": lambda: dot / (a + shrink + 0 * b),
        }[measure]()
    score = np.nan_to_num(score)
    np.fill_diagonal(score, 0)
    return np.asarray(score)


def assert_best(
    lists: tuple[NDArray[np.uint64], NDArray[np.uint32], NDArray[np.float32]], full: NDArray[np.float64], k: int
) -> None:
    """Scores equal those of the full matrix and no better entry is missing; ids may differ where scores tie."""
    offsets, items, scores = lists
    for row, expected in enumerate(full):
        span = slice(int(offsets[row]), int(offsets[row + 1]))
        best = np.sort(expected[expected > 0])[::-1][:k]
        np.testing.assert_allclose(scores[span], best, rtol=2e-5)
        np.testing.assert_allclose(expected[items[span]], scores[span], rtol=2e-5)
        assert len(set(items[span].tolist())) == len(best)


@given(pairs, st.sampled_from(MEASURES), st.sampled_from([0.0, 1.5]), st.sampled_from([1, 3, N_ITEMS]))
def test_item_neighbours_equal_the_formula(data: Pairs, measure: str, shrink: float, k: int) -> None:
    rows, items = data
    table = np.zeros((N_ROWS, N_ITEMS))
    table[rows, items] = 1
    lists = core_rs.item_neighbours(rows, items, (N_ROWS, N_ITEMS), measure=measure, k=k, shrink=shrink)
    assert_best(lists, similarity(measure, table, shrink), k)


@given(pairs)
def test_weighted_cosine_adds_repeated_pairs(data: Pairs) -> None:
    rows, items = data
    weights = np.linspace(0.5, 3, len(rows), dtype=np.float32)
    table = np.zeros((N_ROWS, N_ITEMS))
    np.add.at(table, (rows, items), weights)
    lists = core_rs.item_neighbours(rows, items, (N_ROWS, N_ITEMS), measure="cosine", k=5, shrink=0.0, weights=weights)
    assert_best(lists, similarity("cosine", table, 0), 5)


def skewed(n_rows: int, n_items: int, size: int) -> Pairs:
    random = np.random.default_rng(3)
    items = np.minimum(random.zipf(1.3, size), n_items) - 1
    return random.integers(0, n_rows, size).astype(np.uint32), items.astype(np.uint32)


@pytest.mark.filterwarnings("ignore:Method expects CSR")
def test_cosine_neighbours_equal_those_of_implicit() -> None:
    k, shape = 20, (400, 1500)
    rows, items = skewed(*shape, 30_000)
    table = sparse.csr_matrix((np.ones(len(rows)), (rows, items)), shape=shape)
    table.data[:] = 1
    peer = CosineRecommender(K=k + 1, num_threads=1)
    peer.fit(table, show_progress=False)
    expected = peer.similarity.tolil()
    expected.setdiag(0)
    expected = expected.tocsr()
    offsets, _, scores = core_rs.item_neighbours(rows, items, shape, measure="cosine", k=k, shrink=0.0)
    for item in range(shape[1]):
        best = np.sort(expected[item].data[expected[item].data > 0])[::-1][:k]
        np.testing.assert_allclose(scores[int(offsets[item]) : int(offsets[item + 1])], best, rtol=1e-5)


def test_ties_break_by_item() -> None:
    rows = np.zeros(6, dtype=np.uint32)
    items = np.array([5, 3, 1, 4, 0, 2], dtype=np.uint32)
    _, neighbours, _ = core_rs.item_neighbours(rows, items, (1, 6), measure="cosine", k=2, shrink=0.0)
    assert neighbours.reshape(6, 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], [0, 1]]


@given(pairs, st.integers(1, 4), st.sampled_from([0.0, 0.25, 1.0]))
def test_sequence_neighbours_equal_a_double_loop(data: Pairs, window: int, backward: float) -> None:
    sequence, items = np.sort(data[0]), data[1]
    time_ms = np.arange(len(items), dtype=np.int64)
    full = np.zeros((N_ITEMS, N_ITEMS))
    for first in range(len(items)):
        for second in range(first + 1, min(len(items), first + window + 1)):
            if sequence[first] == sequence[second]:
                weight = 0.5 ** ((time_ms[-1] - time_ms[second]) / 10) / (second - first)
                full[items[first], items[second]] += weight
                full[items[second], items[first]] += backward * weight
    np.fill_diagonal(full, 0)
    rows = np.maximum(np.bincount(items, minlength=N_ITEMS), 1)
    full /= np.outer(np.sqrt(rows), rows)
    lists = core_rs.sequence_neighbours(
        sequence, items, time_ms, N_ITEMS, window=window, k=5, backward=backward, damping=(0.5, 1.0), half_life_ms=10
    )
    assert_best(lists, full, 5)


def personal(
    visitors: NDArray[np.uint32], baskets: NDArray[np.uint32], items: NDArray[np.uint32]
) -> NDArray[np.float64]:
    """Return the vectors of the paper for 3 groups and decays .9 and .7."""
    vectors = np.zeros((N_ROWS, N_ITEMS))
    for visitor in np.unique(visitors):
        history = np.unique(baskets[visitors == visitor])
        groups = np.array_split(history[::-1], min(3, len(history)))[::-1]
        for age, group in enumerate(reversed(groups)):
            for younger, basket in enumerate(sorted(group, reverse=True)):
                mine = items[(visitors == visitor) & (baskets == basket)]
                np.add.at(vectors[visitor], mine, 0.9**younger * 0.7**age / len(group) / len(groups))
    return vectors


@given(pairs, st.booleans())
def test_next_baskets_equal_the_paper(data: Pairs, only_new: bool) -> None:
    visitors, items = np.sort(data[0]), data[1]
    baskets = (np.arange(len(items)) // 2).astype(np.uint32)
    vectors = personal(visitors, baskets, items)
    norms = np.linalg.norm(vectors, axis=1)
    cosine = vectors @ vectors.T / np.maximum(np.outer(norms, norms), 1e-12)
    np.fill_diagonal(cosine, 0)
    mean = np.zeros_like(vectors)
    for visitor in range(N_ROWS):
        near = np.flatnonzero(cosine[visitor])
        mean[visitor] = vectors[near].mean(axis=0) if len(near) else 0
    full = 0.6 * vectors + 0.4 * mean
    if only_new:
        full[vectors > 0] = 0
    shape = (N_ROWS, N_ITEMS)
    entries = core_rs.basket_vectors(visitors, baskets, items, shape, n_groups=3, within=0.9, across=0.7)
    choice = {"neighbours": N_ROWS, "alpha": 0.6, "length": 6, "only_new": only_new}
    assert_best(core_rs.blend_baskets(*entries, shape, (0, N_ROWS), **choice), full, 6)


def test_faults_name_the_argument() -> None:
    good = np.zeros(3, dtype=np.uint32)
    bad = np.array([0, 9, 0], dtype=np.uint32)
    with pytest.raises(ValueError, match=r"`columns\[1\]` is 9, but ids must be below 5"):
        core_rs.item_neighbours(good, bad, (1, 5), measure="cosine", k=1, shrink=0.0)
    with pytest.raises(ValueError, match="`rows` has 2 rows and `columns` has 3"):
        core_rs.item_neighbours(good[:2], bad, (1, 10), measure="cosine", k=1, shrink=0.0)
    with pytest.raises(ValueError, match="`measure` is `cosines`; give one of"):
        core_rs.item_neighbours(good, good, (1, 1), measure="cosines", k=1, shrink=0.0)
    with pytest.raises(ValueError, match="`sequence` is not sorted"):
        core_rs.sequence_neighbours(bad, good, good.astype(np.int64), 1, window=1, k=1, damping=(0.0, 0.0))
    with pytest.raises(ValueError, match=r"`within` is 1\.5; give a number from"):
        core_rs.basket_vectors(good, good, good, (1, 1), n_groups=1, within=1.5, across=1.0)
