"""What models may learn from, what they are asked, and that neither holds the other's items."""

import numpy as np
import polars as pl
import pytest

from trainers.dataset import ACTIONS
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
    split = protocols.leave_one_out(write(tmp_path, "f", "u1 d c b a\nu2 a b\n"))
    items = split.train.items
    assert learnt(split.train) == [("u1", "c"), ("u1", "d"), ("u2", "a"), ("u2", "b")]
    assert asked(split.folds[0].questions, items) == [(["d", "c"], ["b"])]
    assert asked(split.test, items) == [(["d", "c", "b"], ["a"])]
    assert split.folds[0].train is split.train
    assert split.filter_seen
    assert split.left_out == 1


def test_what_a_visitor_comes_back_to_is_asked_for_once(tmp_path):
    table = "user_id,item_id,timestamp\nu1,a,1\nu1,b,2\nu1,c,3\nu1,a,4\nu2,a,1\nu2,b,2\nu2,d,3\nu2,e,4\n"
    split = protocols.leave_one_out(write(tmp_path, "f.csv", table))
    assert asked(split.test, split.train.items) == [(["a", "b"], ["c"]), (["a", "b", "d"], ["e"])]
    split = protocols.sets(write(tmp_path, "a", "u1 a b c\nu2 a b\n"), write(tmp_path, "b", "u1 b d\nu2 a\n"))
    assert asked(split.test, split.train.items) == [(["a", "b", "c"], ["d"])]


TIED = "user_id,item_id,timestamp\n" + "".join(
    f"u{n:02},{item},2026-01-0{day}\n" for n in range(40) for item, day in (("a", 1), ("b", 2), ("c", 2))
)
"""Everybody meets a one day, then b and c on another, nobody knows in which order."""


def test_events_of_one_time_are_asked_for_in_an_order_drawn_by_seed(tmp_path):
    path = write(tmp_path, "f.csv", TIED)
    splits = [protocols.leave_one_out(path, seed=seed) for seed in (0, 0, 1)]
    lots = [[target for _, (target,) in asked(split.test, split.train.items)] for split in splits]
    assert 10 < lots[0].count("b") < 30
    assert lots[0] == lots[1] != lots[2]
    held = [target for _, (target,) in asked(splits[0].folds[0].questions, splits[0].train.items)]
    assert all({early, late} == {"b", "c"} for early, late in zip(held, lots[0], strict=True))


def test_events_of_one_time_come_by_lot_in_every_part_of_sessions(tmp_path):
    split = protocols.sessions(write(tmp_path, "a.csv", TIED), write(tmp_path, "b.csv", TIED))
    items = np.array(split.train.items)
    learnt_orders = {"".join(items[split.train.item[split.train.visitor == visitor]]) for visitor in range(40)}
    assert learnt_orders == {"abc", "acb"}
    for questions in (split.test, split.folds[0].questions):
        assert {("".join(shown), target) for shown, (target,) in asked(questions, items)} == {
            ("a", "b"), ("a", "c"), ("ab", "c"), ("ac", "b"),
        }  # fmt: skip


def test_the_given_order_of_lines_is_no_matter_of_seeds(tmp_path):
    path = write(tmp_path, "f", "u1 d c b a\nu2 a b c\n")
    for split in (protocols.leave_one_out(path, seed=seed) for seed in range(5)):
        assert asked(split.test, split.train.items) == [(["d", "c", "b"], ["a"]), (["a", "b"], ["c"])]
        assert split.train.item.tolist() == [3, 2, 0]
    path, questions = write(tmp_path, "a", "2 1\n1 3 2\n"), write(tmp_path, "b", "2 1\t3\n")
    for split in (protocols.sessions(path, questions, seed=seed) for seed in range(5)):
        assert split.train.item.tolist() == [1, 0, 0, 2, 1]
        assert asked(split.test, split.train.items) == [(["2", "1"], ["3"])]


def test_questions_of_sessions_know_what_was_done(tmp_path):
    rows = "".join(f"s{n:02},a,{n}0,purchase\ns{n:02},b,{n}1,click\ns{n:02},c,{n}2,view\n" for n in range(10, 30))
    path = write(tmp_path, "f.csv", "user_id,item_id,timestamp,event_type\n" + rows)
    split = protocols.sessions(path, path)
    done = [ACTIONS["purchase"], ACTIONS["purchase"], ACTIONS["click"]]
    assert split.folds[0].questions.queries.action.tolist() == done * 2
    assert split.test.queries.action.tolist() == done * 20


@pytest.mark.parametrize(
    ("protocol", "files", "text"),
    [
        ("leave_one_out", ("u1 a b\n",), "f0 leaves nothing to choose models by under the protocol `loo`"),
        ("sessions", ("a\n", "a\tb\n"), "f0 leaves nothing to learn from"),
        ("sets", ("u1 a b c\n", "u1 a\n"), "f0 leaves nothing to test them with"),
        ("baskets", ("a,b\nb,c\n",), "f0 leaves nothing to choose models by"),
    ],
)
def test_a_file_too_small_to_split_says_what_is_missing(tmp_path, protocol, files, text):
    paths = [write(tmp_path, f"f{number}", content) for number, content in enumerate(files)]
    with pytest.raises(ValueError, match=text):
        getattr(protocols, protocol)(*paths)


def test_questions_of_sessions_keep_the_time_between_events(tmp_path):
    split = protocols.sessions(write(tmp_path, "a", "1 2 3\n" * 20), write(tmp_path, "b", "1 2\t3\n"))
    learnt_gap = np.diff(split.train.time_ms[:2])[0]
    for questions in (split.test, split.folds[0].questions):
        assert np.diff(questions.queries.time_ms[-2:])[0] == learnt_gap


def test_sessions_hold_out_the_newest_and_ask_every_prefix(tmp_path):
    lines = "".join(f"{n} {n + 1} {n + 2}\n" for n in range(20))
    split = protocols.sessions(write(tmp_path, "a", lines), write(tmp_path, "b", "1 2\t3\n1\t99\n"))
    items = split.train.items
    assert "99" in items
    assert asked(split.test, items) == [(["1", "2"], ["3"]), (["1"], ["99"])]
    assert asked(split.folds[0].questions, items) == [
        (["18"], ["19"]), (["18", "19"], ["20"]), (["19"], ["20"]), (["19", "20"], ["21"]),
    ]  # fmt: skip
    assert len(split.train) == 60
    assert len(split.folds[0].train) == 54
    assert not split.filter_seen


def test_sets_carve_a_tenth_out_of_training(tmp_path):
    train = "".join(f"u{n} " + " ".join(f"i{n + m}" for m in range(20)) + "\n" for n in range(5)) + "lone i0\n"
    split = protocols.sets(write(tmp_path, "a", train), write(tmp_path, "b", "u0 i90 i91\nu3 i97\n"))
    assert [targets for _, targets in asked(split.test, split.train.items)] == [["i90", "i91"], ["i97"]]
    assert len(split.test.queries.item) == 40
    assert np.diff(split.folds[0].questions.offsets).tolist() == [2] * 5
    assert split.left_out == 4
    assert len(split.folds) == 5
    assert len({tuple(fold.questions.target.tolist()) for fold in split.folds}) > 1
    assert ("lone", "i0") in learnt(split.folds[0].train)
    held = [
        (split.train.visitors[visitor], item)
        for visitor, (_, targets) in zip(
            split.folds[0].questions.queries.visitor, asked(split.folds[0].questions, split.train.items), strict=True
        )
        for item in targets
    ]
    assert sorted(learnt(split.folds[0].train) + held) == learnt(split.train)


def test_baskets_of_visitors_ask_for_the_last_two_baskets(tmp_path):
    split = protocols.baskets(write(tmp_path, "f", "u1 a b\nu2 a\nu1 c a\nu1 d d e\nu2 b\n"))
    items = split.train.items
    assert learnt(split.train) == [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b")]
    assert asked(split.folds[0].questions, items) == [(["a", "b"], ["a", "c"])]
    assert asked(split.test, items) == [(["a", "b", "a", "c"], ["d", "e"])]
    assert (split.filter_seen, split.left_out) == (False, 1)


def test_baskets_of_nobody_miss_one_item(tmp_path):
    lines = "".join(",".join(f"item {(n * 7 + m) % 23}" for m in range(3)) + "\n" for n in range(40)) + "single\n"
    split = protocols.baskets(write(tmp_path, "f", lines))
    assert (len(split.test), len(split.folds[0].questions), split.left_out) == (4, 4, 1)
    assert all(len(shown) == 2 and len(targets) == 1 for shown, targets in asked(split.test, split.train.items))
    learnt_baskets = {visitor for visitor, _ in learnt(split.train)}
    assert len(learnt_baskets) == 33


def test_items_of_the_table_that_nobody_met_are_no_candidates(tmp_path):
    known = pl.DataFrame({"item_id": ["z", "a"], "title": ["zed", "first"]})
    split = protocols.leave_one_out(write(tmp_path, "f", "u1 a b c\n"), known)
    assert split.train.items == ["a", "b", "c"]
    assert split.train.catalogue.titles == ["first", "", ""]


@pytest.mark.parametrize("count", [1, 3, 9])
def test_samples_are_whole_questions(tmp_path, count):
    lines = "".join(f"u{n} " + " ".join(f"i{m}" for m in range(n, 2 * n + 3)) + "\n" for n in range(9))
    questions = protocols.leave_one_out(write(tmp_path, "f", lines)).test
    items = [f"i{n}" for n in range(40)]
    everything = asked(questions, items)
    sample = asked(questions.sample(count), items)
    assert len(sample) == count
    assert all(question in everything for question in sample)
