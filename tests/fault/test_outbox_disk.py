"""The disk of the log is full, or its file damaged: callers are told, nothing acknowledged is lost, no page lies."""

import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cluster_shop import cluster_settings, logged, start, stored
from tests.servers import ClickHouseServer, KafkaServer
from tests.shop_load import LINES, Load, Visits, fill_catalogue, served_count
from tests.shop_process import ShopProcess
from tests.small_disk import fill, small_disk
from tests.table_shop import wait_until

START_FAILED = 78


def takes_events(shop: ShopProcess) -> bool:
    request = health_pb2.HealthCheckRequest(service="shopkeeper.v1.EventService")
    status: int = health_pb2_grpc.HealthStub(shop.channel).Check(request).status
    return status == health_pb2.HealthCheckResponse.SERVING


def test_full_disk_is_told_and_heals(kafka: KafkaServer, clickhouse: ClickHouseServer, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", mebibytes=64) as disk:
        settings = cluster_settings(kafka.address, clickhouse.address, disk / "a" / "data")
        with start(settings, disk / "a") as shop:
            fill_catalogue(shop)
            with Visits(shop) as visits:
                load = Load("a", patient=True).on(shop)
                time.sleep(0.5)
                ballast = fill(disk)
                wait_until(lambda: load.faults.total() > 3)
                wait_until(lambda: not takes_events(shop))
                before = len(load.acknowledged)
                ballast.unlink()
                wait_until(lambda: len(load.acknowledged) > before)
                wait_until(lambda: takes_events(shop))
                load.stop()
            assert visits.faults == []
            assert load.faults.keys() == {grpc.StatusCode.UNAVAILABLE}
            assert load.acknowledged
            wait_until(lambda: load.acknowledged <= stored(settings).keys(), 60)
            assert set(stored(settings).values()) == {LINES}
            assert served_count(shop) == len(logged(disk / "a"))
            assert shop.stop() == 0


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the log of a server that was killed."""
    data_dir = tmp_path_factory.mktemp("healthy") / "data"
    with ShopProcess(data_dir) as shop:
        fill_catalogue(shop)
        load = Load("a").on(shop)
        time.sleep(1)
        load.stop()
        shop.kill()
    with closing(sqlite3.connect(data_dir / "log.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return data_dir / "log.sqlite"


def without_head(content: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(100) + content[100:]


def without_records(content: bytes, chance: random.Random) -> bytes:
    return content[:8_192] + chance.randbytes(len(content) - 8_192)


def cut(content: bytes, _chance: random.Random) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize("damage", [without_head, without_records, cut])
def test_damaged_log_is_refused_with_its_name_and_what_to_do(
    healthy: Path, tmp_path: Path, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    path = tmp_path / "data" / "log.sqlite"
    path.parent.mkdir()
    path.write_bytes(damage(healthy.read_bytes(), random.Random(7)))
    with ShopProcess(path.parent) as shop:
        assert shop.wait() == START_FAILED
    told = (tmp_path / "server.log").read_text(encoding="utf-8")
    assert f"log {path} cannot be used" in told
    assert "restore the file from a backup" in told
