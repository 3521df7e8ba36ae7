"""`shopkeeper retrain` against a running server: the first bundle serves, one that cannot be judged does not."""

import json
import time
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from shopkeeper.v1.model_service_pb2 import ListModelsRequest, ListModelsResponse, Model
from tests.shop_process import ShopProcess
from tests.weekly_shop import ITEMS, SPLIT_MS, purchases

pytest.importorskip("chdb")


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--json"])


def states(shop):
    answer = ListModelsResponse.FromString(
        shop.call("ModelService/ListModels", ListModelsRequest().SerializeToString())
    )
    return {model.version: model.state for model in answer.models}


def bring(tmp_path, events, data_dir):
    """Import purchases, and the items they name."""
    names = {"visitor_id": "user_id", "time_ms": "timestamp"}
    events.rename(names).select(*names.values(), "item_id", "event_type").write_csv(tmp_path / "events.csv")
    (tmp_path / "items.csv").write_text("\n".join(["item_id", *(f"i{number:02}" for number in range(ITEMS))]))
    for kind in ("items", "events"):
        assert run("import", kind, tmp_path / f"{kind}.csv", "--data-dir", data_dir).exit_code == 0


def test_the_first_bundle_serves_and_one_without_a_window_does_not_replace_it(tmp_path):
    data_dir = tmp_path / "data"
    bring(tmp_path, purchases(), data_dir)
    with ShopProcess(data_dir) as shop:
        states(shop)
        options = ("--data-dir", data_dir, "--address", f"127.0.0.1:{shop.port}")
        first = run("retrain", *options)
        assert first.exit_code == 0, first.output
        version = json.loads(first.stdout)["version"]
        assert states(shop) == {version: Model.STATE_ACTIVE}
        second = run("retrain", *options)
        assert second.exit_code == 5, second.output
        error = json.loads(second.stdout)["error"]
        assert "0 visitors have an answer in the window" in error["why"]
        assert "none was trained" in error["what"]
        assert list((data_dir / "bundles" / "incoming").iterdir()) == []
        assert states(shop) == {version: Model.STATE_ACTIVE}


def test_every_round_judges_anew_and_goes_on(tmp_path, monkeypatch):
    data_dir = tmp_path / "data"
    events = purchases(visitors=130)
    bring(tmp_path, events.filter(events["time_ms"] < SPLIT_MS), data_dir)
    with ShopProcess(data_dir) as shop:
        states(shop)
        options = ("--data-dir", data_dir, "--address", f"127.0.0.1:{shop.port}", "--tolerance", 0.5)
        assert run("retrain", *options).exit_code == 0
        (first,) = states(shop)
        bring(tmp_path, events.filter(events["time_ms"] >= SPLIT_MS), data_dir)
        slept = []

        def sleep(seconds):
            slept.append(seconds)
            if len(slept) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr("server.cli.retrain.time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        ran = run("retrain", *options, "--every", 1)
        after = states(shop)
    (second,) = set(after) - {first}
    assert after == {first: Model.STATE_PUBLISHED, second: Model.STATE_ACTIVE}, ran.output
    gate = json.loads(ran.stdout.splitlines()[0])["gate"]
    assert gate["passed"]
    assert gate["visitors"] >= 100
    assert f"No new bundle takes the place of {second}" in ran.stderr
    assert all(0 < seconds <= 3_600 for seconds in slept)
