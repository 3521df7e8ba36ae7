"""Encoder late or failing, its files missing, another catalogue, no vectors: a slate stays full and says why."""

import asyncio
import threading
import time

import grpc
import numpy as np
import pytest

from server.app import App
from server.settings import ListenSettings, Settings
from shopkeeper.aio import AsyncClient
from shopkeeper.calls import event
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from tests import bundle_maker
from tests.bundle_maker import ITEMS, BundleMaker
from tests.encoded_shop import FILES, WIDTH, item_vectors, write_encoder
from tests.set_clock import set_clock
from tests.table_shop import wait_until

LATE_MS = 2_001
"""After which an answer says that the last event is not in it."""


class Shop:
    """Server with a catalogue, a bundle with an encoder, and a client."""

    def __init__(self, folder):
        self.folder = folder

    async def open(self):
        self.app = App(Settings(data_dir=self.folder, listen=ListenSettings(port=0)))
        address = await self.app.start()
        self.client = AsyncClient(address, timeout_s=60)
        self.channel = grpc.aio.insecure_channel(address)
        return self

    async def close(self):
        await self.client.close()
        await self.channel.close()
        await self.app.stop()

    async def bring(self, vectors, version="one"):
        """Let a bundle with an encoder serve."""
        await self.client.upsert_items([Item(item_id=name) for name in ITEMS])
        incoming = self.folder / "bundles" / "incoming"
        (incoming / version).mkdir(parents=True)
        write_encoder(incoming / version, vectors)
        BundleMaker(incoming).make(version)
        stub = ModelServiceStub(self.channel)
        await stub.PublishModel(pb.PublishModelRequest(version=version), timeout=100)
        await stub.ActivateModel(pb.ActivateModelRequest(version=version), timeout=60)

    async def look(self, item="bread", visitor="v"):
        await self.client.record([event(EventType.EVENT_TYPE_VIEW, visitor, [item])])

    async def ask(self, visitor="v"):
        answer = await self.client.recommend("home_for_you", visitor)
        assert len(answer.slates[0].items) == len(ITEMS)
        proposed = any("sequence" in item.sources for item in answer.slates[0].items)
        return proposed, list(answer.degraded)

    async def encoded(self):
        await asyncio.to_thread(wait_until, lambda: not self.app.engine.waiting)


@pytest.fixture
def clock(monkeypatch):
    """Return the clock of a shop that is asked for after it."""
    return set_clock(monkeypatch, time.time_ns() // 1_000_000)


@pytest.fixture
async def shop(tmp_path):
    shop = await Shop(tmp_path).open()
    yield shop
    await shop.close()


async def test_an_event_is_in_the_next_answers_soon_and_nothing_is_degraded(shop):
    await shop.bring(item_vectors(len(ITEMS)))
    assert await shop.ask() == (False, [])
    await shop.look()
    await shop.encoded()
    assert await shop.ask() == (True, [])


async def test_a_late_encoder_holds_no_answer_up_and_catches_up(clock, shop, monkeypatch):
    await shop.bring(item_vectors(len(ITEMS)))
    going_on, encode = threading.Event(), shop.app._models.encode
    monkeypatch.setattr(shop.app._models, "encode", lambda histories: going_on.wait(60) and encode(histories))
    await shop.look()
    assert await shop.ask() == (False, [])
    clock.time_ms += LATE_MS
    assert await shop.ask() == (False, ["sequence_late"])
    going_on.set()
    await shop.encoded()
    assert await shop.ask() == (True, [])


def broken(_):
    raise RuntimeError("broken")


def not_finite(histories):
    return np.full((len(histories), WIDTH), np.nan, np.float32)


@pytest.mark.parametrize("trouble", [broken, not_finite])
async def test_a_failing_encoder_leaves_the_last_vector_and_is_tried_again(clock, shop, monkeypatch, trouble):
    await shop.bring(item_vectors(len(ITEMS)))
    await shop.look()
    await shop.encoded()
    with monkeypatch.context() as patch:
        patch.setattr(shop.app._models, "encode", trouble)
        await shop.look("butter")
        await shop.look("butter", visitor="new")
        clock.time_ms += LATE_MS
        assert await shop.ask() == (True, ["sequence_late"])
        assert await shop.ask("new") == (False, ["sequence_late"])
    await shop.encoded()
    assert await shop.ask("new") == (True, [])


@pytest.mark.parametrize("name", FILES)
async def test_a_file_that_went_missing_leaves_rules(tmp_path, name):
    shop = await Shop(tmp_path).open()
    await shop.bring(item_vectors(len(ITEMS)))
    await shop.look()
    await shop.encoded()
    await shop.close()
    (tmp_path / "bundles" / "one" / name).unlink()
    shop = await Shop(tmp_path).open()
    try:
        assert await shop.ask() == (False, ["bundle_not_loaded"])
    finally:
        await shop.close()


async def test_an_encoder_of_another_catalogue_is_said(shop, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(bundle_maker, "ITEMS", ["nails", "screws", "bolts"])
        await shop.bring(item_vectors(3))
    await shop.look()
    await shop.encoded()
    assert await shop.ask() == (False, ["sequence_vectors_missing"])


async def test_items_without_vectors_are_said(shop):
    await shop.bring(np.zeros((len(ITEMS), WIDTH), np.float32))
    await shop.look()
    await shop.encoded()
    assert await shop.ask() == (False, ["sequence_vectors_missing"])


async def test_an_item_without_a_vector_is_shown_all_the_same(shop):
    vectors = item_vectors(len(ITEMS))
    vectors[ITEMS.index("cheese")] = 0
    await shop.bring(vectors)
    await shop.look()
    await shop.encoded()
    assert await shop.ask() == (True, [])


async def test_who_waited_at_the_end_is_encoded_before_the_next_start_is_ready(tmp_path, monkeypatch):
    shop = await Shop(tmp_path).open()
    await shop.bring(item_vectors(len(ITEMS)))
    monkeypatch.setattr(shop.app._models, "encode", broken)
    await shop.look()
    await shop.look("butter", visitor="w")
    await shop.close()
    shop = await Shop(tmp_path).open()
    try:
        assert shop.app.engine.waiting == 0
        assert await shop.ask() == await shop.ask("w") == (True, [])
    finally:
        await shop.close()
