"""A new bundle serves only where it is not worse than the one before, and only where that can be said."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.weekly_shop import SPLIT_MS, VISITORS, purchases, write_tables
from trainers.__main__ import app
from trainers.dataset import Dataset
from trainers.evaluate import Measured
from trainers.gate import MEASURE, compare, undecided
from trainers.pipeline import Pipeline


def measured(values):
    return Measured({MEASURE: np.asarray(values, np.float64)}, left_out=0, recall=np.zeros(50))


def scores(count=2_000, seed=1):
    return np.random.default_rng(seed).beta(1, 3, count)


def test_the_same_model_passes_without_a_difference():
    verdict = compare(measured(scores()), measured(scores()), 0.0, seed=0)
    assert verdict.passed
    assert (verdict.low, verdict.high, verdict.new) == (0.0, 0.0, verdict.old)


def test_a_worse_model_does_not_pass_and_the_interval_says_so():
    old = scores()
    verdict = compare(measured(old * 0.9), measured(old), 0.02, seed=0)
    assert not verdict.passed
    assert verdict.low < verdict.high < 0
    assert compare(measured(old * 0.9), measured(old), 0.2, seed=0).passed


def test_noise_that_may_hide_a_loss_does_not_pass():
    old = scores()
    noisy = old + np.random.default_rng(2).normal(0, 0.5, len(old))
    few = compare(measured(noisy[:200]), measured(old[:200]), 0.02, seed=0)
    assert not few.passed
    assert few.low < 0 < few.high


def test_too_few_visitors_decide_nothing(monkeypatch):
    shop = Dataset.from_frames(purchases())
    assert undecided(shop, SPLIT_MS).startswith(
        f"only {VISITORS} visitors have an answer in the window; 100 are needed"
    )
    assert undecided(shop, int(shop.time_ms.max()) + 1).startswith("only 0 visitors")
    monkeypatch.setattr("trainers.gate.LEAST_VISITORS", VISITORS)
    assert not undecided(shop, SPLIT_MS)


def test_nothing_is_trained_where_too_few_visitors_decide(tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "run", lambda _: pytest.fail("trained before it counted"))
    purchases().write_parquet(tmp_path / "events.parquet")
    write_tables(tmp_path)
    serving = tmp_path / "b1"
    serving.mkdir()
    (serving / "manifest.json").write_text(json.dumps({"train_end_ms": SPLIT_MS}))
    options = ["--export", str(tmp_path), "--out", str(tmp_path / "out"), "--against", str(serving)]
    ran = CliRunner().invoke(app, ["train", *options, "--json"])
    assert ran.exit_code == 0, ran.output
    (name,) = found = json.loads(ran.stdout)
    assert (name, found["gate"]["passed"]) == ("gate", False)
    assert "wait for more" in found["gate"]["why"]
    assert "no bundle was made: only" in CliRunner().invoke(app, ["train", *options]).stdout
    assert not (tmp_path / "out").exists()


def test_the_interval_is_drawn_from_the_seed():
    pair = measured(scores()), measured(scores(seed=3))
    assert compare(*pair, 0.02, seed=1) == compare(*pair, 0.02, seed=1) != compare(*pair, 0.02, seed=2)
