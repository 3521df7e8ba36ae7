"""What models may learn from, what they are asked, and that neither holds the other's items."""

import numpy as np
import polars as pl
import pytest

from trainers.offline import protocols


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return path


def asked(questions, items):
    queries = questions.queries
    return [
        (
            [items[item] for item in queries.item[queries.offsets[n] : queries.offsets[n + 1]]],
            sorted(items[item] for item in questions.target[questions.offsets[n] : questions.offsets[n + 1]]),
        )
        for n in range(len(questions))
    ]


def learnt(data):
    return sorted(zip([data.visitors[v] for v in data.visitor], [data.items[i] for i in data.item], strict=True))


def test_leave_one_out_asks_for_the_last_two(tmp_path):
    trial = protocols.leave_one_out(write(tmp_path, "f", "u1 d c b a\nu2 a b\n"))
    items = trial.train.items
    assert learnt(trial.train) == [("u1", "c"), ("u1", "d"), ("u2", "a"), ("u2", "b")]
    assert asked(trial.folds[0].questions, items) == [(["d", "c"], ["b"])]
    assert asked(trial.test, items) == [(["d", "c", "b"], ["a"])]
    assert trial.folds[0].train is trial.train
    assert trial.filter_seen
    assert trial.left_out == 1


def test_sessions_hold_out_the_newest_and_ask_every_prefix(tmp_path):
    lines = "".join(f"{n} {n + 1} {n + 2}\n" for n in range(20))
    trial = protocols.sessions(write(tmp_path, "a", lines), write(tmp_path, "b", "1 2\t3\n1\t99\n"))
    items = trial.train.items
    assert "99" in items
    assert asked(trial.test, items) == [(["1", "2"], ["3"]), (["1"], ["99"])]
    assert asked(trial.folds[0].questions, items) == [
        (["18"], ["19"]), (["18", "19"], ["20"]), (["19"], ["20"]), (["19", "20"], ["21"]),
    ]  # fmt: skip
    assert len(trial.train) == 60
    assert len(trial.folds[0].train) == 54
    assert not trial.filter_seen


def test_sets_carve_a_tenth_out_of_training(tmp_path):
    train = "".join(f"u{n} " + " ".join(f"i{n + m}" for m in range(20)) + "\n" for n in range(5)) + "lone i0\n"
    trial = protocols.sets(write(tmp_path, "a", train), write(tmp_path, "b", "u0 i90 i91\nu3 i7\n"))
    assert [targets for _, targets in asked(trial.test, trial.train.items)] == [["i90", "i91"], ["i7"]]
    assert len(trial.test.queries.item) == 40
    assert np.diff(trial.folds[0].questions.offsets).tolist() == [2] * 5
    assert trial.left_out == 4
    assert len(trial.folds) == 5
    assert len({tuple(fold.questions.target.tolist()) for fold in trial.folds}) > 1
    assert ("lone", "i0") in learnt(trial.folds[0].train)
    held = [
        (trial.train.visitors[visitor], item)
        for visitor, (_, targets) in zip(
            trial.folds[0].questions.queries.visitor, asked(trial.folds[0].questions, trial.train.items), strict=True
        )
        for item in targets
    ]
    assert sorted(learnt(trial.folds[0].train) + held) == learnt(trial.train)


def test_baskets_of_visitors_ask_for_the_last_two_baskets(tmp_path):
    trial = protocols.baskets(write(tmp_path, "f", "u1 a b\nu2 a\nu1 c a\nu1 d d e\nu2 b\n"))
    items = trial.train.items
    assert learnt(trial.train) == [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b")]
    assert asked(trial.folds[0].questions, items) == [(["a", "b"], ["a", "c"])]
    assert asked(trial.test, items) == [(["a", "b", "a", "c"], ["d", "e"])]
    assert (trial.filter_seen, trial.left_out) == (False, 1)


def test_baskets_of_nobody_miss_one_item(tmp_path):
    lines = "".join(",".join(f"item {(n * 7 + m) % 23}" for m in range(3)) + "\n" for n in range(40)) + "single\n"
    trial = protocols.baskets(write(tmp_path, "f", lines))
    assert (len(trial.test), len(trial.folds[0].questions), trial.left_out) == (4, 4, 1)
    assert all(len(shown) == 2 and len(targets) == 1 for shown, targets in asked(trial.test, trial.train.items))
    learnt_baskets = {visitor for visitor, _ in learnt(trial.train)}
    assert len(learnt_baskets) == 33


def test_items_of_the_table_that_nobody_met_are_no_candidates(tmp_path):
    known = pl.DataFrame({"item_id": ["z", "a"], "title": ["zed", "first"]})
    trial = protocols.leave_one_out(write(tmp_path, "f", "u1 a b c\n"), known)
    assert trial.train.items == ["a", "b", "c"]
    assert trial.train.catalogue.titles == ["first", "", ""]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_samples_are_whole_questions(tmp_path, count):
    lines = "".join(f"u{n} " + " ".join(f"i{m}" for m in range(n, 2 * n + 3)) + "\n" for n in range(9))
    questions = protocols.leave_one_out(write(tmp_path, "f", lines)).test
    items = [f"i{n}" for n in range(40)]
    everything = asked(questions, items)
    sample = asked(questions.sample(count), items)
    assert len(sample) == count
    assert all(question in everything for question in sample)
