"""A recommender is usable when its needs are met and its file is published; else the report says what is missing."""

import inspect

import core_rs
from server import readiness as module
from server.readiness import RECOMMENDERS, next_of, readiness
from trainers.examples import LEARNABLE, learnable_actions
from trainers.gate import LEAST_VISITORS

NOTHING = dict.fromkeys((need.fact for one in RECOMMENDERS for need in one.needs), 0)
ENOUGH = dict.fromkeys(NOTHING, 10_000)


def states(facts, files=()):
    return {one.name: one.state for one in readiness(facts, files)}


def test_every_source_of_the_engine_is_reported():
    assert {one.name for one in RECOMMENDERS} == {*core_rs.source_names(), "ranker", "sequence"}


def test_an_empty_shop_waits_for_everything():
    assert set(states(NOTHING).values()) == {"waiting"}
    missing = {one.name: one.missing for one in readiness(NOTHING, ())}
    assert missing["ranker"] == (
        "500 more lines of one action, best of purchases",
        "100 more visitors with two baskets",
    )


def test_enough_data_is_trainable_until_the_file_is_published():
    found = states(ENOUGH, {"also_bought.safetensors"})
    assert (found["popular"], found["also_bought"], found["ranker"]) == ("usable", "usable", "trainable")
    assert next_of(readiness(ENOUGH, ())) is None
    assert all(bool(one.then) == (one.state == "trainable") for one in readiness(ENOUGH, ()))


def test_next_is_what_lacks_the_least_share():
    facts = ENOUGH | {"buyers_of_three_baskets": 90, "long_histories": 400}
    upcoming = next_of(readiness(facts, ()))
    assert (upcoming.name, upcoming.missing) == ("next_basket", ("10 more visitors with three baskets",))


def test_one_short_is_waiting():
    for one in RECOMMENDERS:
        for need in one.needs:
            assert states(ENOUGH | {need.fact: need.least})[one.name] != "waiting"
            assert states(ENOUGH | {need.fact: need.least - 1})[one.name] == "waiting"


def test_thresholds_are_those_of_the_trainers():
    assert inspect.signature(learnable_actions).parameters["least"].default == module.LEARNT_LINES
    assert LEAST_VISITORS == module.JUDGED_VISITORS
    assert all(f"'{name}'" in module.FACTS[4] for name in LEARNABLE)
