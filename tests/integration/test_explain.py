"""An explanation names the features that moved a score."""

from itertools import pairwise

import pytest

from shopkeeper.calls import event
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from shopkeeper.v1.recommendation_service_pb2 import ExplainRequest, PlacementRequest, RecommendRequest
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from tests.bundle_maker import ITEMS, BundleMaker


@pytest.fixture
async def explain(shop, settings):
    await shop.client.upsert_items([Item(item_id=name) for name in ITEMS])
    bought = [ITEMS[:1], ITEMS[:2], ITEMS]
    await shop.client.record([event(EventType.EVENT_TYPE_PURCHASE, f"v{i}", items) for i, items in enumerate(bought)])
    models = ModelServiceStub(shop.channel)
    version = BundleMaker(settings.bundle_dir / "incoming").make("one")
    await models.PublishModel(pb.PublishModelRequest(version=version), timeout=60)
    await models.ActivateModel(pb.ActivateModelRequest(version=version))

    async def explain(*placements, page_size=2):
        wanted = [PlacementRequest(placement_id=placement, page_size=page_size) for placement in placements]
        request = RecommendRequest(context=Context(visitor_id="v0"), placements=wanted)
        stub = RecommendationServiceStub(shop.channel)
        return (await stub.Explain(ExplainRequest(request=request))).traces

    return explain


async def test_two_features_that_moved_the_score_are_named_strongest_first(explain):
    (trace,) = await explain("home_for_you", page_size=len(ITEMS))
    assert len(trace.items) == len(ITEMS)
    for item in trace.items:
        assert len(item.moved_by) == 2
        assert {it.name for it in item.moved_by} <= {feature.name for feature in item.features}
        first, second = (abs(it.effect) for it in item.moved_by)
        assert first >= second > 0


async def test_each_placement_of_a_request_has_its_own_and_rules_have_none(explain):
    ranked, ruled = await explain("home_for_you", "home_trending")
    assert ranked.items
    assert ruled.items
    assert all(item.moved_by for item in ranked.items)
    assert not any(item.moved_by for item in ruled.items)


async def test_filters_follow_each_other_and_the_last_lets_the_candidates_pass(explain):
    (trace,) = await explain("home_new")
    filters = [stage for stage in trace.stages if stage.name.startswith("filter.")]
    assert all(before.out_count == after.in_count for before, after in pairwise(filters))
    (score,) = [stage for stage in trace.stages if stage.name.startswith("score")]
    assert filters[-1].out_count == score.in_count
    assert sum(stage.in_count - stage.out_count for stage in filters) == filters[0].in_count - score.in_count
