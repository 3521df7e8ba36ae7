"""A placement is blended by what the model predicts, and says where it cannot be."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from core_rs import Engine
from shopkeeper.v1 import record_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import ActionValue, Placement, SourceUse
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest, RecommendRequest, RecommendResponse
from tests.bundle_maker import ITEMS, BundleMaker

NOW = 1_700_000_000_000


def answer(folder: Path, values: Mapping[str, float]) -> RecommendResponse:
    """Return what a bundle that predicts purchases answers in a placement with these values of actions."""
    engine = Engine()
    version = BundleMaker(folder).make("v1")
    engine.load_bundle(str(folder / version))
    blended = [ActionValue(action=action, value=value) for action, value in values.items()]
    sources = [SourceUse(source="new_arrivals")]
    placement = Placement(placement_id="home", sources=sources, use_model=True, action_values=blended)
    messages = [
        *((record_pb2.RECORD_KIND_ITEM, record_pb2.ItemChange(item=Item(item_id=name))) for name in ITEMS),
        (record_pb2.RECORD_KIND_DOCUMENT, record_pb2.DocumentChange(placement=placement)),
        (record_pb2.RECORD_KIND_ACTIVATION, record_pb2.Activation(version=version)),
    ]
    engine.apply([(n, kind, NOW, message.SerializeToString()) for n, (kind, message) in enumerate(messages, 1)])
    asked = RecommendRequest(context=Context(visitor_id="v"), placements=[PlacementRequest(placement_id="home")])
    plan = engine.begin(asked.SerializeToString(), NOW)
    ranked = plan.features.sum(axis=1, keepdims=True)
    return RecommendResponse.FromString(engine.finish(plan, ranked).response)


@pytest.mark.parametrize("values", [{}, {"purchase": 2.0}, {"purchase": 1.0, "return": 0.0}])
def test_an_answer_with_all_the_actions_it_values_is_whole(tmp_path: Path, values: Mapping[str, float]) -> None:
    assert list(answer(tmp_path, values).degraded) == []


@pytest.mark.parametrize("values", [{"purchas": 1.0}, {"purchase": 1.0, "return": -0.5}])
def test_an_action_that_nobody_predicts_is_told_beside_a_full_slate(
    tmp_path: Path, values: Mapping[str, float]
) -> None:
    response = answer(tmp_path, values)
    assert list(response.degraded) == ["action_not_predicted"]
    assert len(response.slates[0].items) == len(ITEMS)
