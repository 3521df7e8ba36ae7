"""Any client that speaks gRPC reflection can call every service, as the README shows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shop_process import ShopProcess

BUF = Path(sys.executable).with_name("buf")
ASK = {"context": {"visitorId": "v"}, "placements": [{"placementId": "home_for_you"}]}
SEARCH = {"eventId": "e1", "eventType": "EVENT_TYPE_SEARCH", "context": {"visitorId": "v", "query": "tea"}}
CALLS = [
    ("EventService/RecordEvents", {"events": [SEARCH]}),
    ("CatalogService/UpsertItems", {"items": [{"itemId": "tea"}]}),
    ("CatalogService/GetItem", {"itemId": "tea"}),
    ("ProfileService/UpsertProfile", {"profile": {"visitorId": "v"}}),
    ("PlacementService/ListPlacements", {}),
    ("RecommendationService/Recommend", ASK),
    ("ModelService/ListModels", {}),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    with ShopProcess(tmp_path_factory.mktemp("shop") / "data") as shop:
        shop.call("PlacementService/ListPlacements", b"")
        yield shop


def curl(shop: ShopProcess, method: str, body: object) -> dict[str, object]:
    url = f"http://127.0.0.1:{shop.port}/{method}"
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(body), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("method", "body"), CALLS, ids=[method for method, _ in CALLS])
def test_a_reflection_client_calls_every_service(shop, method, body):
    assert isinstance(curl(shop, f"shopkeeper.v1.{method}", body), dict)


def test_a_reflection_client_asks_for_health(shop):
    for service in ("", "shopkeeper.v1.RecommendationService", "shopkeeper.v1.EventService"):
        assert curl(shop, "grpc.health.v1.Health/Check", {"service": service}) == {"status": "SERVING"}


def test_what_was_upserted_is_recommended(shop):
    curl(shop, "shopkeeper.v1.CatalogService/UpsertItems", {"items": [{"itemId": "tea"}]})
    answer = curl(shop, "shopkeeper.v1.RecommendationService/Recommend", ASK)
    assert [item["itemId"] for item in answer["slates"][0]["items"]] == ["tea"]
