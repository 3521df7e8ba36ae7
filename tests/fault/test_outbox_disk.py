"""The disk of the log is full, or its file damaged: callers are told, nothing acknowledged is lost, no page lies."""

import random
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.cluster_shop import cluster_settings, logged, start, stored
from tests.servers import ClickHouseServer, KafkaServer
from tests.shop_load import LINES, Load, Visits, answers, fill_catalogue
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
            assert set(logged(disk / "a").values()) == {1}
            assert shop.stop() == 0


@pytest.fixture
def healthy(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """Return the folder of a server that was killed, and its pages."""
    data_dir = tmp_path / "data"
    with ShopProcess(data_dir) as shop:
        fill_catalogue(shop)
        load = Load("a").on(shop)
        time.sleep(1)
        load.stop()
        pages = answers(shop)
        shop.kill()
    with closing(sqlite3.connect(data_dir / "log.sqlite")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return data_dir, pages


@pytest.mark.parametrize("damage", ["head", "records", "cut"])
def test_damaged_log_is_refused_with_its_name_and_what_to_do(healthy: tuple[Path, list[bytes]], damage: str) -> None:
    data_dir, _ = healthy
    path = data_dir / "log.sqlite"
    content = bytearray(path.read_bytes())
    chance = random.Random(7)
    if damage == "head":
        content[:100] = chance.randbytes(100)
    elif damage == "records":
        content[8_192:] = chance.randbytes(len(content) - 8_192)
    else:
        content = content[: len(content) // 2]
    path.write_bytes(content)
    with ShopProcess(data_dir) as shop:
        assert shop.wait() == START_FAILED
    told = (data_dir.parent / "server.log").read_text(encoding="utf-8").splitlines()[-5:]
    assert any(f"log {path} cannot be used" in line and "restore the file from a backup" in line for line in told)
