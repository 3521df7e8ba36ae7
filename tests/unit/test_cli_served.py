"""Commands that ask a server: what they print, and how they end when it refuses."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_status import rpc_status

from server.errors import ServiceError, to_status
from shopkeeper.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    item_pb2,
    model_service_pb2,
    model_service_pb2_grpc,
    placement_pb2,
    placement_service_pb2,
    placement_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
)
from tests.command_line import failed


class Models(model_service_pb2_grpc.ModelServiceServicer):
    mode = model_service_pb2.Trial.MODE_SHADOW
    previous = ""

    def PublishModel(self, request, context):  # noqa: N802
        if request.version == "bad":
            fault = ServiceError("BUNDLE_REJECTED", "bundle `bad`: golden answers differ")
            context.abort_with_status(rpc_status.to_status(to_status(fault, "r1")))
        model = model_service_pb2.Model(version=request.version, state=model_service_pb2.Model.STATE_PUBLISHED)
        return model_service_pb2.PublishModelResponse(model=model)

    def GetTrial(self, _request, _context):  # noqa: N802
        trial = model_service_pb2.Trial(version="v1", mode=self.mode, share=0.1)
        report = model_service_pb2.TrialReport(request_count=1_234, mean_agreement=0.5)
        return model_service_pb2.GetTrialResponse(trial=trial, report=report)

    def StopTrial(self, _request, _context):  # noqa: N802
        return model_service_pb2.StopTrialResponse()

    def RollbackModel(self, _request, context):  # noqa: N802
        if not self.previous:
            fault = ServiceError("NO_PREVIOUS_MODEL", "none")
            context.abort_with_status(rpc_status.to_status(to_status(fault, "r1")))
        return model_service_pb2.RollbackModelResponse(model=model_service_pb2.Model(version=self.previous))


class Recommendations(recommendation_service_pb2_grpc.RecommendationServiceServicer):
    def Recommend(self, request, context):  # noqa: N802
        if request.placements[0].placement_id == "nowhere":
            fault = ServiceError("PLACEMENT_NOT_FOUND", "no placement `nowhere`")
            context.abort_with_status(rpc_status.to_status(to_status(fault, "r1")))
        shown = recommendation_service_pb2.RecommendedItem(
            item_id="i1",
            score=0.5,
            reason=recommendation_service_pb2.REASON_BOUGHT_TOGETHER,
            because_item_id="i2",
            sources=["bought_together"],
        )
        missing = [item_id for item_id in request.placements[0].anchor_item_ids if item_id != "i1"]
        slate = recommendation_service_pb2.Slate(
            placement_id=request.placements[0].placement_id, items=[shown], missing_item_ids=missing
        )
        told = f"{request.context.user_id}|{request.context.visitor_id}"
        return recommendation_service_pb2.RecommendResponse(request_id=told, slates=[slate], degraded=["model_missing"])

    def Explain(self, request, context):  # noqa: N802
        stages = [
            recommendation_service_pb2.StageTrace(name="source.popular", out_count=9),
            recommendation_service_pb2.StageTrace(name="filter.in_stock", in_count=9, out_count=3),
        ]
        trace = recommendation_service_pb2.SlateTrace(stages=stages)
        return recommendation_service_pb2.ExplainResponse(
            response=self.Recommend(request.request, context), traces=[trace]
        )


class Placements(placement_service_pb2_grpc.PlacementServiceServicer):
    def ListPlacements(self, request, _context):  # noqa: N802
        name, token = ("cart", "") if request.page_token else ("home_for_you", "more")
        placement = placement_pb2.Placement(placement_id=name, description="For people")
        return placement_service_pb2.ListPlacementsResponse(placements=[placement], next_page_token=token)

    def ListControls(self, request, _context):  # noqa: N802
        name, token = ("i3", "") if request.page_token else ("i1", "more")
        pin = placement_pb2.Control(control_id=f"first-{name}", pin=placement_pb2.Control.Pin(item_id=name, position=1))
        return placement_service_pb2.ListControlsResponse(controls=[pin], next_page_token=token)


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    def BatchGetItems(self, _request, _context):  # noqa: N802
        bread = item_pb2.Item(item_id="i1", title="Bread", brand="Own brand")
        bread.price.units, bread.price.nanos = 1, 990_000_000
        return catalog_service_pb2.BatchGetItemsResponse(items=[bread, item_pb2.Item(item_id="i2", title="Butter")])


@pytest.fixture
def address():
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
        recommendation_service_pb2_grpc.add_RecommendationServiceServicer_to_server(Recommendations(), server)
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server)
        placement_service_pb2_grpc.add_PlacementServiceServicer_to_server(Placements(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_bundle_that_fails_its_check_ends_with_5(run, address):
    error = failed(run("publish", "bad", "--address", address, "--json"), 5)
    assert "golden answers differ" in error["why"]


def test_publish_prints_the_card_and_names_the_next_command(run, address):
    outcome = run("publish", "v1", "--address", address)
    assert "v1: published" in outcome.stdout
    assert "shopkeeper activate v1" in outcome.stderr


def test_rollback_without_a_bundle_before_is_a_failure(run, address):
    assert "activate" in failed(run("rollback", "--address", address, "--json"), 1)["next"]


def test_recommend_names_product_brand_price_and_reason(run, address):
    shown = run("recommend", "u1", "--address", address).stdout
    for word in ("Bread", "Own brand", "1.99", "bought together: Butter", "model_missing"):
        assert word in shown
    data = json.loads(run("recommend", "u1", "--address", address, "--json").stdout)
    assert data["items"][0]["item_id"] == "i1"
    assert data["items"][0]["price"] == pytest.approx(1.99)
    assert data["degraded"] == ["model_missing"]


@pytest.mark.parametrize("command", ["recommend", "explain"])
def test_items_of_the_question_that_the_catalogue_lacks_are_named(run, address, command):
    anchored = run(command, "u1", "--item", "i1", "--item", "[gone]", "--address", address).stdout
    assert "the catalogue lacks: [gone]" in anchored
    assert "catalogue" not in run(command, "u1", "--item", "i1", "--address", address).stdout


def test_recommend_asks_for_a_customer_or_for_an_anonymous_visitor(run, address):
    told = [
        json.loads(run("recommend", "u1", *flags, "--address", address, "--json").stdout)["request_id"]
        for flags in ([], ["--anonymous"])
    ]
    assert told == ["u1|", "|u1"]


def test_placement_that_is_none_names_the_command_that_lists_them(run, address):
    error = failed(run("recommend", "u1", "-p", "nowhere", "--address", address, "--json"), 1)
    assert "shopkeeper placements" in error["next"]
    listed = json.loads(run("placements", "--address", address, "--json").stdout)["placements"]
    assert [placement["placement_id"] for placement in listed] == ["home_for_you", "cart"]
    assert "For people" in run("placements", "--address", address).stdout


def test_pinned_item_that_the_catalogue_lacks_is_named(run, address):
    found = json.loads(run("placements", "--address", address, "--json").stdout)
    assert [control["control_id"] for control in found["controls"]] == ["first-i1", "first-i3"]
    assert found["missing_item_ids"] == ["i3"]
    lines = [line for line in run("placements", "--address", address).stdout.splitlines() if "first-" in line]
    assert ["puts i1 at position 1" in lines[0], "the catalogue lacks" in lines[0]] == [True, False]
    assert "the catalogue lacks the item" in lines[1]


def test_explain_tells_what_went_into_a_filter_and_came_out(run, address):
    (line,) = [line for line in run("explain", "u1", "--address", address).stdout.splitlines() if "in_stock" in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]] == ["filter.in_stock", "9", "3", ""]


def test_trial_show_gives_counts_as_numbers(run, address):
    report = json.loads(run("trial", "show", "--address", address, "--json").stdout)["report"]
    assert (report["request_count"], report["failed_count"], report["mean_agreement"]) == (1_234, 0, 0.5)


@pytest.mark.parametrize("mode", ["shadow", "canary"])
def test_trial_show_names_the_mode_as_trial_start_does(run, address, monkeypatch, mode):
    monkeypatch.setattr(Models, "mode", model_service_pb2.Trial.Mode.Value(f"MODE_{mode.upper()}"))
    shown = json.loads(run("trial", "show", "--address", address, "--json").stdout)
    assert shown["trial"]["mode"] == mode
    (line,) = [line for line in run("trial", "show", "--address", address).stdout.splitlines() if "mode" in line]
    assert line.split("│")[2].strip() == mode


def test_trial_stop_says_that_none_is_in_force(run, address):
    assert run("trial", "stop", "--address", address).stdout.strip() == "no trial is in force"
