"""`shopkeeper retrain` against a running server: the first bundle serves, one that cannot be judged does not."""

import json

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from shopkeeper.v1.model_service_pb2 import ListModelsRequest, ListModelsResponse, Model
from tests.shop_process import ShopProcess
from tests.weekly_shop import ITEMS, purchases

pytest.importorskip("chdb")


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments), "--json"])


def states(shop):
    answer = ListModelsResponse.FromString(
        shop.call("ModelService/ListModels", ListModelsRequest().SerializeToString())
    )
    return {model.version: model.state for model in answer.models}


def test_the_first_bundle_serves_and_one_without_a_window_does_not_replace_it(tmp_path):
    data_dir = tmp_path / "data"
    names = {"visitor_id": "user_id", "time_ms": "timestamp"}
    purchases().rename(names).select(*names.values(), "item_id", "event_type").write_csv(tmp_path / "events.csv")
    (tmp_path / "items.csv").write_text("\n".join(["item_id", *(f"i{number:02}" for number in range(ITEMS))]))
    for kind in ("items", "events"):
        assert run("import", kind, tmp_path / f"{kind}.csv", "--data-dir", data_dir).exit_code == 0
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
        assert states(shop) == {version: Model.STATE_ACTIVE}
