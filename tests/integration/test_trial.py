"""A bundle on trial: seen by nobody in the shadow, by its share of visitors as a canary, gone when the trial ends."""

import asyncio
import shutil

import grpc
import pytest
from prometheus_client import REGISTRY

from server.app import App
from server.lockfile import FileLock
from server.ports import NewRecord
from server.shadow import agreement
from shopkeeper.aio import AsyncClient
from shopkeeper.calls import event
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from shopkeeper.v1.recommendation_service_pb2 import RecommendedItem, Slate
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, RECORD_KIND_DECISION, Activation
from tests.bundle_maker import ITEMS, BundleMaker

VISITORS = [f"visitor-{number}" for number in range(400)]


@pytest.fixture
async def models(shop, settings):
    """Stub of a shop in which `one` serves, and `two`, which ranks the other way round, is published."""
    await shop.client.upsert_items([Item(item_id=name) for name in ITEMS])
    bought = [ITEMS[:1], ITEMS[:2], ITEMS]
    await shop.client.record([event(EventType.EVENT_TYPE_PURCHASE, f"v{i}", items) for i, items in enumerate(bought)])
    stub = ModelServiceStub(shop.channel)
    maker = BundleMaker(settings.bundle_dir / "incoming")
    for version, weight in (("one", 0.01), ("two", -0.01)):
        await stub.PublishModel(pb.PublishModelRequest(version=maker.make(version, weight=weight)), timeout=60)
    await stub.ActivateModel(pb.ActivateModelRequest(version="one"), timeout=60)
    return stub


async def start(stub, version="two", mode=pb.Trial.MODE_SHADOW, share=1.0):
    trial = pb.Trial(version=version, mode=mode, share=share)
    return (await stub.StartTrial(pb.StartTrialRequest(trial=trial), timeout=60)).trial


async def report(stub, count=0):
    """Return the report once it covers `count` requests; the shadow follows a little behind the answers."""
    for _ in range(1_000):
        found = (await stub.GetTrial(pb.GetTrialRequest())).report
        if found.request_count + found.dropped_count + found.failed_count >= count:
            return found
        await asyncio.sleep(0.01)
    pytest.fail(f"the shadow did not follow {count} requests within 10 s")


async def versions(client, visitors=VISITORS):
    return {visitor: (await client.recommend("home_for_you", visitor)).model_version for visitor in visitors}


async def test_a_shadow_is_compared_and_never_shown(shop, models):
    shown = [item.item_id for item in (await shop.client.recommend("home_for_you", "v9")).slates[0].items]
    await start(models)
    for visitor in VISITORS[:20]:
        answer = await shop.client.recommend("home_for_you", visitor)
        assert answer.model_version == "one"
        assert [item.item_id for item in answer.slates[0].items] == shown
    found = await report(models, 20)
    assert (found.request_count, found.failed_count, found.dropped_count) == (20, 0, 0)
    assert found.mean_agreement == 1.0  # the same three items
    assert found.first_agreement == 0.0  # the other way round
    assert found.mean_duration_us > 0
    assert found.mean_served_duration_us > 0
    await shop.client.record([event(EventType.EVENT_TYPE_VIEW, "v9", ITEMS[:1])])  # commits what waits
    decisions = [record for record in shop.app._log.read(0, 1_000) if record.kind == RECORD_KIND_DECISION]
    assert len(decisions) == 21
    assert REGISTRY.get_sample_value("shopkeeper_shadow_requests_total", {"outcome": "answered"}) >= 20


async def test_a_canary_serves_its_share_of_visitors_and_always_the_same(shop, models):
    await start(models, mode=pb.Trial.MODE_CANARY, share=0.3)
    first = await versions(shop.client)
    share = sum(version == "two" for version in first.values()) / len(first)
    assert 0.2 < share < 0.4
    assert await versions(shop.client) == first
    await start(models, mode=pb.Trial.MODE_CANARY, share=0.6)
    wider = await versions(shop.client)
    assert all(wider[visitor] == "two" for visitor, version in first.items() if version == "two")
    assert not (await models.GetTrial(pb.GetTrialRequest())).HasField("report")


async def test_a_trial_ends_by_stop_and_by_activation(shop, models):
    await start(models, mode=pb.Trial.MODE_CANARY)
    assert set((await versions(shop.client, VISITORS[:3])).values()) == {"two"}
    assert (await models.GetModel(pb.GetModelRequest(version="two"))).model.state == pb.Model.STATE_TRIAL
    await models.StopTrial(pb.StopTrialRequest())
    assert set((await versions(shop.client, VISITORS[:3])).values()) == {"one"}
    await start(models, mode=pb.Trial.MODE_CANARY)
    await models.ActivateModel(pb.ActivateModelRequest(version="two"))
    assert not (await models.GetTrial(pb.GetTrialRequest())).HasField("trial")
    assert (await models.RollbackModel(pb.RollbackModelRequest())).model.version == "one"
    assert set((await versions(shop.client, VISITORS[:3])).values()) == {"one"}


async def test_a_trial_goes_on_after_a_restart_from_a_snapshot(shop, models, settings):
    await start(models, mode=pb.Trial.MODE_CANARY, share=0.5)
    before = await versions(shop.client, VISITORS[:50])
    await shop.app.stop()
    again = App(settings)
    async with AsyncClient(await again.start(), timeout_s=60) as client:
        assert await versions(client, VISITORS[:50]) == before
    await again.stop()


async def test_another_trial_begins_its_report_at_nothing(shop, models):
    await start(models)
    await versions(shop.client, VISITORS[:5])
    await report(models, 5)
    await start(models, share=0.5)
    assert (await report(models)).request_count == 0


async def test_a_shadow_that_falls_behind_passes_requests_over(shop, models, monkeypatch):
    await start(models)
    monkeypatch.setattr("server.shadow._MOST_WAITING", 0)
    await versions(shop.client, VISITORS[:5])
    found = await report(models)
    assert (found.request_count, found.dropped_count) == (0, 5)


async def test_a_shadow_whose_model_fails_is_counted_and_the_answers_stay(shop, models, monkeypatch):
    await start(models)
    ranker = shop.app._models._loaded["two"].ranker
    monkeypatch.setattr(ranker, "score", lambda _: (None, "model_failed"))
    assert set((await versions(shop.client, VISITORS[:5])).values()) == {"one"}
    found = await report(models, 5)
    assert (found.failed_count, found.request_count) == (5, 0)


async def test_a_canary_whose_bundle_is_gone_leaves_its_visitors_to_the_one_that_serves(shop, models, settings):
    await start(models, mode=pb.Trial.MODE_CANARY)
    await shop.app.stop()
    shutil.rmtree(settings.bundle_dir / "two")
    again = App(settings)
    async with AsyncClient(await again.start(), timeout_s=60) as client:
        answer = await client.recommend("home_for_you", "v1")
        assert (answer.model_version, list(answer.degraded)) == ("one", ["trial_not_loaded"])
        assert len(answer.slates[0].items) == len(ITEMS)
    await again.stop()


async def test_a_bundle_that_another_worker_activates_meanwhile_is_no_longer_on_trial(shop, models):
    trial = pb.Trial(version="two", mode=pb.Trial.MODE_CANARY, share=1.0)
    rows = [Activation(version="two"), Activation(trial=trial, is_trial_only=True)]
    records = [NewRecord(RECORD_KIND_ACTIVATION, "", "", row.SerializeToString()) for row in rows]
    await shop.app._log.append(records, shop.app._clock.now_ms())
    assert set((await versions(shop.client, VISITORS[:3])).values()) == {"two"}
    assert not (await models.GetTrial(pb.GetTrialRequest())).HasField("trial")
    assert (await models.GetModel(pb.GetModelRequest(version="two"))).model.state == pb.Model.STATE_ACTIVE


async def test_a_publication_holds_up_nobody_who_changes_what_serves(models, settings):
    with FileLock(settings.data_dir / "serving.lock"):
        version = BundleMaker(settings.bundle_dir / "incoming").make("three")
        await models.PublishModel(pb.PublishModelRequest(version=version), timeout=60)
        with pytest.raises(grpc.aio.AioRpcError, match="Deadline"):
            await models.ActivateModel(pb.ActivateModelRequest(version="three"), timeout=0.5)
    await models.ActivateModel(pb.ActivateModelRequest(version="three"), timeout=60)


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"version": "none"}, "NOT_FOUND", "publish it first"),
        ({"version": "one"}, "FAILED_PRECONDITION", "serves already"),
        ({"share": 0.0}, "INVALID_ARGUMENT", "trial.share"),
        ({"share": float("nan")}, "INVALID_ARGUMENT", "trial.share"),
        ({"share": 1.5}, "INVALID_ARGUMENT", "trial.share"),
        ({"mode": pb.Trial.MODE_UNSPECIFIED}, "INVALID_ARGUMENT", "trial.mode"),
        ({"mode": 9}, "INVALID_ARGUMENT", "trial.mode"),
    ],
)
async def test_a_trial_that_makes_no_sense_is_refused_and_says_why(models, changes, status, text):
    with pytest.raises(grpc.aio.AioRpcError, match=text) as caught:
        await start(models, **changes)
    assert caught.value.code().name == status


async def test_a_trial_needs_a_bundle_that_serves(shop, settings):
    stub = ModelServiceStub(shop.channel)
    version = BundleMaker(settings.bundle_dir / "incoming").make("two")
    await stub.PublishModel(pb.PublishModelRequest(version=version), timeout=60)
    with pytest.raises(grpc.aio.AioRpcError, match="no bundle serves"):
        await start(stub)


def test_agreement_is_the_share_of_the_items_shown():
    slate = lambda *ids: Slate(items=[RecommendedItem(item_id=item_id) for item_id in ids])  # noqa: E731
    assert agreement(slate("a", "b"), slate("b", "c")) == 0.5
    assert agreement(slate("a"), slate()) == 0.0
