"""A whole server in the test's own process."""

from typing import NamedTuple

import grpc
import pytest

from server.app import App
from server.settings import ListenSettings, Settings
from shopkeeper.aio import AsyncClient


class Shop(NamedTuple):
    address: str
    app: App
    channel: grpc.aio.Channel
    client: AsyncClient


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0))


@pytest.fixture
async def shop(settings):
    app = App(settings)
    address = await app.start()
    async with grpc.aio.insecure_channel(address) as channel, AsyncClient(address, timeout_s=60) as client:
        yield Shop(address, app, channel, client)
    await app.stop()
