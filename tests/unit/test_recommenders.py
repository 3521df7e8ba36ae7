"""What each recommender scores, against closed forms and plain loops."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.als import Als
from trainers.content import Content
from trainers.dataset import Dataset
from trainers.ease import Ease
from trainers.graph_filter import GraphFilter
from trainers.item_to_item import ItemKnn
from trainers.recommender import NOBODY, Queries, queries_of
from trainers.sequence_knn import SequenceKnn
from trainers.sequential_rules import SequentialRules
from trainers.tifu_knn import TifuKnn
from trainers.trend import Trend
from trainers.user_to_user import UserToUser

DAY, HOUR = 86_400_000, 3_600_000
N_ITEMS = 6


def shop(histories: list[list[int]], items: pl.DataFrame | None = None, times=None) -> Dataset:
    rows = [(f"v{n:02}", f"i{item}", place) for n, row in enumerate(histories) for place, item in enumerate(row)]
    table = pl.DataFrame({"item_id": [f"i{n}" for n in range(N_ITEMS)]})
    events = pl.DataFrame(rows, schema=["visitor_id", "item_id", "place"], orient="row").with_columns(
        event_id=pl.int_range(pl.len()).cast(pl.String).str.zfill(4),
        event_type=pl.lit("view"),
        time_ms=pl.Series(times) if times else pl.col("place") * DAY,
    )
    return Dataset.from_frames(events, table if items is None else table.join(items, on="item_id", how="left"))


def asked(histories: list[list[int]], visitor: int = int(NOBODY), start_ms: int = 0) -> Queries:
    items = np.array([item for history in histories for item in history], np.uint32)
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    place = np.arange(len(items)) - np.repeat(offsets[:-1], np.diff(offsets))
    visitors = np.full(len(histories), visitor, np.uint32)
    return Queries(visitors, offsets, items, np.ones(len(items), np.uint8), start_ms + place * HOUR, N_ITEMS)


HISTORIES = [[0, 1, 2], [1, 2, 3, 0], [4, 1], [2, 4, 5, 1], [5, 0]]
histories = st.lists(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=5, unique=True), min_size=2, max_size=8)


def test_lists_add_up_over_the_last_steps_of_a_history():
    model = ItemKnn(shrink=0.0, decay=0.5, window=2, k=9).fit(shop(HISTORIES))
    lists = np.zeros((N_ITEMS, N_ITEMS))
    for item in range(N_ITEMS):
        entries = slice(model.offsets_[item], model.offsets_[item + 1])
        lists[item, model.neighbours_[entries]] = model.scores_[entries]
    np.testing.assert_allclose(model.score(asked([[5, 0, 1]]))[0], lists[1] + 0.5 * lists[0], rtol=1e-6)


def test_equal_times_are_ordered_by_seed_and_others_are_not():
    data = shop([[0, 1, 2, 3, 4, 5]])
    level = replace(data, time_ms=np.zeros_like(data.time_ms))

    def rules(rows, seed):
        return SequentialRules(actions=(), max_distance=1, seed=seed).fit(rows).neighbours_.tolist()

    assert rules(data, 0) == rules(data, 1) == [1, 2, 3, 4, 5]
    assert len({tuple(rules(level, seed)) for seed in range(5)}) > 1
    assert rules(level, 3) == rules(level, 3)


@settings(max_examples=30)
@given(histories, histories, st.integers(1, 3), st.sampled_from([1.0, 0.5]), st.sampled_from([1.0, 0.25]))
def test_near_histories_equal_a_plain_loop(learnt, questions, neighbours, nearby, behind):
    model = SequenceKnn(k=neighbours, nearby=nearby, behind=behind, decay=0.5, window=9, power=2.0)
    model.fit(shop(learnt))
    found = model.score(asked(questions))
    for row, history in enumerate(questions):
        weight = {item: 0.5 ** (len(history) - 1 - place) for place, item in enumerate(history)}
        alike = [sum(weight.get(item, 0) for item in other) / np.sqrt(len(other)) for other in learnt]
        nearest = sorted((n for n in range(len(learnt)) if alike[n] > 0), key=lambda n: (-np.float32(alike[n]), n))
        expected = np.zeros(N_ITEMS)
        for n in nearest[:neighbours]:
            last = learnt[n].index([item for item in history if item in learnt[n]][-1])
            for place, item in enumerate(learnt[n]):
                said = alike[n] ** 2 * nearby ** abs(place - last) * (behind if place < last else 1)
                expected[item] += said
        np.testing.assert_allclose(found[row], expected, rtol=1e-4, atol=1e-7)


def test_a_visitor_is_no_neighbour_of_its_own():
    model = SequenceKnn().fit(shop([[0, 1], [0, 2]]))
    assert model.score(asked([[0]], visitor=0))[0, 1] == 0
    assert model.score(asked([[0]]))[0, 1] > 0


def ease_in_closed_form(histories):
    """Return the weights of the paper for a regularisation of 2."""
    table = np.zeros((len(histories), N_ITEMS))
    for row, history in enumerate(histories):
        table[row, history] = 1
    inverse = np.linalg.inv(table.T @ table + 2.0 * np.eye(N_ITEMS))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights


def test_ease_is_the_closed_form():
    weights = ease_in_closed_form(HISTORIES)
    model = Ease(regularization=2.0).fit(shop(HISTORIES))
    np.testing.assert_allclose(model.weights_, weights, atol=1e-5)
    np.testing.assert_allclose(model.score(asked([[1, 4, 1]]))[0], weights[1] + weights[4], atol=1e-5)


def test_ease_of_few_visitors_is_the_closed_form():
    learnt = [[0, 1, 2], [1, 2, 3, 0]]
    model = Ease(regularization=2.0).fit(shop(learnt))
    np.testing.assert_allclose(model.weights_, ease_in_closed_form(learnt), atol=1e-6)


@pytest.mark.parametrize("model", [TifuKnn, UserToUser])
@settings(max_examples=30)
@given(learnt=histories)
def test_visitor_lists_score_a_history_as_they_would_list_it(model, learnt):
    data = shop(learnt)
    fitted = model(k=N_ITEMS * 9, actions=()).fit(data)
    found = fitted.score(queries_of(data, np.arange(len(learnt), dtype=np.uint32)))
    for visitor, scores in enumerate(found):
        entries = slice(fitted.offsets_[visitor], fitted.offsets_[visitor + 1])
        listed = np.zeros(N_ITEMS)
        listed[fitted.items_[entries]] = fitted.scores_[entries]
        np.testing.assert_allclose(scores, listed, atol=1e-6)


def test_visitor_lists_read_a_moment_as_a_basket():
    fitted = TifuKnn(n_groups=1, within=0.5, alpha=1.0, actions=()).fit(shop(HISTORIES))
    question = replace(asked([[0, 1, 1, 2]]), time_ms=np.array([0, HOUR, HOUR, HOUR]))
    np.testing.assert_allclose(fitted.score(question)[0], [0.25, 0.5, 0.5, 0, 0, 0])


def test_the_nearest_visitors_have_a_say_alone():
    fitted = UserToUser(k=1, actions=()).fit(shop([[0, 1, 2], [0, 3], [4]]))
    np.testing.assert_allclose(fitted.score(asked([[1, 2], [0, 3], [5]])), [
        [1 / 3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0],
    ], atol=1e-6)  # fmt: skip


def test_ease_in_blocks_agrees_where_every_item_meets_every_other():
    everything = [[a, b, 5] for a in range(5) for b in range(5) if a != b]
    dense = Ease(regularization=3.0).fit(shop(everything))
    blocked = Ease(regularization=3.0, memory_mib=0).fit(shop(everything))
    np.testing.assert_allclose(blocked.weights_.toarray(), dense.weights_, atol=1e-5)
    narrow = Ease(regularization=3.0, memory_mib=0, block=1).fit(shop(everything))
    assert np.diff(narrow.weights_.tocsc().indptr).tolist() == [1] * N_ITEMS


def test_the_spectral_filter_is_that_of_the_dense_decomposition():
    table = np.zeros((len(HISTORIES), N_ITEMS))
    for row, history in enumerate(HISTORIES):
        table[row, history] = 1
    degree = np.sqrt(table.sum(axis=0))
    damped = table / np.sqrt(table.sum(axis=1))[:, None] / degree
    waves = np.linalg.svd(damped)[2][:2].T
    spread = damped.T @ damped + 0.3 * (waves @ waves.T) / degree[:, None] * degree
    model = GraphFilter(n_factors=2, low_pass=0.3).fit(shop(HISTORIES))
    np.testing.assert_allclose(model.score(asked([[1, 4, 1]]))[0], spread[1] + spread[4], atol=1e-5)


def test_als_ends_where_the_gradient_vanishes():
    model = Als(n_factors=4, n_iterations=200, unobserved=0.3, regularization=0.2, scaling=0.5).fit(shop(HISTORIES))
    items = model.factors_.astype(np.float64)
    table = np.zeros((len(HISTORIES), N_ITEMS))
    for row, history in enumerate(HISTORIES):
        table[row, history] = 1

    def solved(table, fixed):
        rows = []
        for row in table:
            ridge = 0.2 * (row.sum() + 0.3 * len(row)) ** 0.5
            left = fixed.T @ (fixed * (row + 0.3)[:, None]) + ridge * np.eye(fixed.shape[1])
            rows.append(np.linalg.solve(left, fixed.T @ row))
        return np.array(rows)

    visitors = solved(table, items)
    np.testing.assert_allclose(solved(table.T, visitors), items, atol=1e-3)
    np.testing.assert_allclose(model.score(asked(HISTORIES)), visitors @ items.T, atol=1e-4)


def test_content_knows_words_categories_and_vectors():
    items = pl.DataFrame(
        {
            "item_id": ["i0", "i1", "i2", "i3"],
            "title": ["red lamp", "blue lamp", "chair", "table"],
            "category_path": [["home", "lamps"], ["home", "lamps"], ["home", "seats"], ["garden"]],
        }
    )
    data = shop([[0, 1], [2, 3], [3, 5]], items)
    score = Content(popularity=0.0).fit(data).score(asked([[0]]))[0]
    assert score[1] > score[2] > 0
    assert score[3] == score[4] == 0
    seen = pl.DataFrame({"item_id": ["i0", "i3"], "vector": [[1.0, 0.0], [1.0, 0.1]]})
    by_vector = Content().fit(shop([[0, 1], [2, 3]], seen)).score(asked([[0]]))[0]
    assert by_vector[3] > 0
    assert by_vector[1] == 0
    both = (
        Content(vectors=0.5).fit(shop([[0, 1], [2, 3]], items.join(seen, on="item_id", how="left"))).score(asked([[0]]))
    )
    assert min(both[0, 1], both[0, 3]) > 0


def test_vectors_of_two_widths_are_refused():
    items = pl.DataFrame({"item_id": ["i0", "i1"], "vector": [[1.0], [1.0, 2.0]]})
    with pytest.raises(ValueError, match=r"item vectors have \[1, 2\] numbers"):
        shop([[0]], items)


def test_trend_follows_age_and_hour():
    days = [d * DAY + (8 if item == 0 else 20) * HOUR for d in range(10) for item in (0, 1)]
    data = shop([[0, 1] * 10], times=days)
    model = Trend(half_life_days=0.0, seasons=("hour",), prior=1.0).fit(data)
    morning, evening = (model.score(asked([[2]], start_ms=20 * DAY + hour * HOUR))[0] for hour in (8, 20))
    assert morning[0] > 2 * morning[1]
    assert evening[1] > 2 * evening[0]
    aged = Trend(half_life_days=1.0, seasons=()).fit(shop([[0, 0, 0, 1]], times=[0, 0, 0, 4 * DAY]))
    assert aged.level_[:2].tolist() == [3 / 16, 1]


def test_a_season_that_did_not_come_twice_is_left_out():
    model = Trend().fit(shop([[0, 1, 2]], times=[0, DAY, 15 * DAY]))
    assert set(model.factors_) == {"hour", "weekday"}
    with pytest.raises(ValueError, match="give hour, weekday or week"):
        Trend(seasons=("moon",)).fit(shop(HISTORIES))
