"""The trainer, onnxruntime on the engine's arrays and the slates that are served say the same of 1,000 visitors."""

import asyncio
import datetime as dt

import grpc
import numpy as np
import polars as pl
import pytest

from server.app import App
from server.settings import ClockSettings, ListenSettings, Settings
from shopkeeper.aio import AsyncClient
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.placement_service_pb2 import UpsertPlacementRequest
from shopkeeper.v1.placement_service_pb2_grpc import PlacementServiceStub
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest
from tests.encoded_shop import NOW, EncodedShop, view
from tests.table_shop import wait_until
from trainers.bundle import ManifestFacts, write_bundle
from trainers.dataset import ACTIONS, Dataset
from trainers.gru4rec import Gru4Rec
from trainers.recommender import NOBODY, Queries
from trainers.sasrec import SasRec
from trainers.sequence.histories import Histories
from trainers.sequence.settings import Training

VISITORS, ITEMS, SIZE = 1_000, 120, 20
LENGTH = 16
QUICK = Training(window=LENGTH, learning_rate=1e-2, epochs=2)


def strolls():
    """Return visitors of 1 to 30 views, then of what they were shown between them, at times that are theirs."""
    rng = np.random.default_rng(4)
    sizes = rng.integers(1, 31, VISITORS)
    visitor = np.repeat(np.arange(VISITORS), sizes)
    item = (
        rng.integers(0, ITEMS, VISITORS)[visitor] + 7 * np.arange(len(visitor)) + rng.integers(0, 3, len(visitor))
    ) % ITEMS
    time_ms = NOW - rng.permutation(len(visitor)) * 61_000 - rng.integers(0, 1_000, len(visitor))
    views = pl.DataFrame(
        {
            "event_id": [f"e{n}" for n in range(len(visitor))],
            "visitor_id": [f"v{n:04}" for n in visitor],
            "item_id": [f"i{n}" for n in item],
            "event_type": ["view"] * len(visitor),
            "time_ms": time_ms,
        }
    )
    shown = views.sample(fraction=0.3, seed=4).with_columns(
        event_id=pl.format("s{}", "event_id"), event_type=pl.lit("impression"), time_ms=pl.col("time_ms") + 500
    )
    return pl.concat([views, shown])


def whole_histories(dataset):
    return Queries(
        np.full(dataset.n_visitors, NOBODY),
        np.searchsorted(dataset.visitor, np.arange(dataset.n_visitors + 1)),
        dataset.item,
        dataset.action,
        dataset.time_ms,
        dataset.n_items,
    )


@pytest.fixture(scope="module")
def lines():
    return strolls()


@pytest.fixture(scope="module")
def dataset(lines):
    return Dataset.from_frames(lines, pl.DataFrame({"item_id": [f"i{n}" for n in range(ITEMS)]}))


@pytest.fixture(scope="module", params=[SasRec, Gru4Rec], ids=lambda kind: kind.__name__)
def model(request, dataset):
    return request.param(n_factors=32, training=QUICK).fit(dataset)


@pytest.fixture
def shop(model, dataset, lines, tmp_path):
    return visited(model, dataset, lines, tmp_path)


def visited(model, dataset, lines, folder):
    shop = EncodedShop(ITEMS)
    shop.install(write_bundle(folder, ManifestFacts("one", NOW), dataset, [model], None))
    shop.put(*messages(lines))
    return shop


def messages(lines):
    rows = lines.sort("time_ms").select("item_id", "visitor_id", "time_ms", "event_type").iter_rows()
    for item, visitor, time_ms, event_type in rows:
        kind, event = view(item, visitor=visitor, at_ms=time_ms)
        event.event_type = ACTIONS[event_type]
        yield kind, event


def test_the_engine_shows_the_encoder_what_the_trainer_would(shop, model, dataset, lines):
    coming = lines.sort("time_ms")["visitor_id"].unique(maintain_order=True).str.slice(1).cast(pl.Int64).to_numpy()
    histories = Histories.of_queries(whole_histories(dataset))
    inputs = histories.inputs(*histories.latest(LENGTH))
    expected = model.encoder_.answer(inputs)
    for start in range(0, VISITORS, 64):
        rows = coming[start : start + 64]
        taken = shop.engine.take_histories(64)
        assert (taken.items == inputs.items[rows]).all()
        assert (taken.actions == inputs.actions[rows]).all()
        assert (taken.gaps == inputs.gaps[rows]).all()
        np.testing.assert_allclose(shop.vectors(taken), expected[rows], rtol=0, atol=1e-5 * 14)


def test_a_vector_depends_on_its_own_history_only(shop, model, dataset, lines, tmp_path):
    alone = visited(model, dataset, lines, tmp_path / "alone")
    assert (shop.encode(64), alone.encode(1)) == (VISITORS, VISITORS)
    for kept, name in ((shop, "together"), (alone, "apart")):
        kept.engine.save_snapshot(str(tmp_path / name))
    assert (tmp_path / "together").read_bytes() == (tmp_path / "apart").read_bytes()


def test_what_is_served_is_ranked_as_the_trainer_ranks(shop, model, dataset):
    assert shop.encode() == VISITORS
    offline = model.score(whole_histories(dataset))
    # Half a step of a vector of norm 14 moves a score by so much at most, and a difference by twice that.
    moved = 14 / 127 / 2 * np.abs(model.encoder_.table()).sum(axis=1).max()
    same = []
    for visitor, scores in zip(dataset.visitors, offline, strict=True):
        items = shop.ask(visitor, size=SIZE).slates[0].items
        shown = [int(item.item_id[1:]) for item in items if "sequence" in item.sources]
        best = np.argsort(-scores)[:SIZE]
        assert len(shown) >= min(SIZE, (scores > moved).sum())
        assert (np.diff(scores[shown]) <= 2 * moved).all()
        same.append(len(set(shown) & set(best.tolist())) / SIZE)
    assert np.mean(same) > 0.95


async def open_shop(address, client, lines):
    """Let the bundle serve, and record what the visitors did."""
    async with grpc.aio.insecure_channel(address) as channel:
        await client.upsert_items([Item(item_id=f"i{n}") for n in range(ITEMS)])
        placement = Placement(placement_id="next", sources=[SourceUse(source="sequence")])
        await PlacementServiceStub(channel).UpsertPlacement(UpsertPlacementRequest(placement=placement))
        models = ModelServiceStub(channel)
        await models.PublishModel(pb.PublishModelRequest(version="one"), timeout=100)
        await models.ActivateModel(pb.ActivateModelRequest(version="one"), timeout=60)
    events = []
    for number, (_, event) in enumerate(messages(lines)):
        event.event_id = str(number)
        events.append(event)
    for start in range(0, len(events), 500):
        await client.record(events[start : start + 500])


async def test_the_server_shows_what_the_engine_does(shop, model, dataset, lines, tmp_path):
    shop.encode()
    moment = dt.datetime.fromtimestamp(NOW // 1000, dt.UTC)
    settings = Settings(
        data_dir=tmp_path / "data", listen=ListenSettings(port=0), clock=ClockSettings(start=moment, rate=0.0)
    )
    incoming = settings.bundle_dir / "incoming"
    incoming.mkdir(parents=True)
    write_bundle(incoming, ManifestFacts("one", NOW), dataset, [model], None)
    app = App(settings)
    address = await app.start()
    try:
        async with AsyncClient(address, timeout_s=30) as client:
            await open_shop(address, client, lines)
            await asyncio.to_thread(wait_until, lambda: not app.engine.waiting)
            wanted = PlacementRequest(placement_id="next", page_size=SIZE)
            for visitor in dataset.visitors:
                served = await client.recommend(wanted, visitor)
                assert served.slates[0].items == shop.ask(visitor, size=SIZE).slates[0].items
                assert not served.degraded
    finally:
        await app.stop()
