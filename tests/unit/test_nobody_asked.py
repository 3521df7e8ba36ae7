"""Commands of the trainers that find nobody to ask say so before they learn anything, and print no table."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from server.cli import main
from tests.weekly_shop import SPLIT_MS, purchases, write_tables
from trainers.__main__ import app
from trainers.dataset import HELD_OUT_FILE
from trainers.pipeline import Pipeline


@pytest.fixture
def export(tmp_path, monkeypatch):
    """An export in which nobody came back after the split; nothing is to be learnt from it."""

    def learn(*_):
        raise AssertionError("learnt before it was known whether there is anybody to ask")

    monkeypatch.setattr(Pipeline, "run", learn)
    monkeypatch.setattr(Pipeline, "compare", learn)
    bought = purchases()
    late = bought.filter(pl.col("time_ms") >= SPLIT_MS).with_columns(visitor_id=pl.format("new-{}", "visitor_id"))
    late.write_parquet(tmp_path / HELD_OUT_FILE)
    bought.filter(pl.col("time_ms") < SPLIT_MS).write_parquet(tmp_path / "events.parquet")
    write_tables(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", [["evaluate"], ["ablate"], ["served", "--address", "127.0.0.1:1"]], ids=" ".join)
def test_where_there_is_nobody_to_ask_that_is_the_fault_and_there_is_no_table(export, command):
    arguments = [*command, "--export", str(export)]
    ran = CliRunner().invoke(app, arguments)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "both before and after 2026-01-05 00:00 UTC, so there is nobody to ask" in ran.stderr
    assert "`--min-baskets`" in ran.stderr
    ran = CliRunner().invoke(app, [*arguments, "--json"])
    assert ran.exit_code == 1
    assert "nobody to ask" in json.loads(ran.stdout)["error"]


def test_shopkeeper_evaluate_ends_with_the_fault(export):
    ran = CliRunner().invoke(main.app, ["evaluate", "--export", str(export), "--json"])
    assert ran.exit_code == 1
    error = json.loads(ran.stdout)["error"]
    assert "nobody to ask" in error["why"]
    ran = CliRunner().invoke(main.app, ["evaluate", "--export", str(export)])
    assert (ran.exit_code, ran.stdout) == (1, "")
