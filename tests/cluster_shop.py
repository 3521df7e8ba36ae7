"""Machines of a deployment with Kafka and ClickHouse, and what their logs and tables hold."""

import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path

from server.adapters.sqlite_log import SqliteLog
from server.ports import StoreError
from server.settings import ClickHouseSettings, Settings
from server.tables import open_store, prepare_store
from tests.kafka_shop import kafka_settings, topics
from tests.shop_process import ShopProcess
from tests.whole_log import event_ids


def cluster_settings(kafka_address: str, clickhouse_address: str, data_dir: Path) -> Settings:
    """Return settings with topics and a database of their own, made as `shopkeeper migrate` does."""
    clickhouse = ClickHouseSettings(server=clickhouse_address, database=f"test_{uuid.uuid4().hex}")
    settings = Settings(data_dir=data_dir, kafka=topics(kafka_settings(kafka_address)), clickhouse=clickhouse)
    prepare_store(settings).close()
    return settings


def start(settings: Settings, folder: Path, **options: str) -> ShopProcess:
    """Start a machine whose data are in `folder`; `options` are further settings by the names of the environment."""
    folder.mkdir(exist_ok=True)
    kafka, clickhouse = settings.kafka, settings.clickhouse
    environment = {
        "KAFKA__SERVERS": kafka.servers,
        "KAFKA__PREFIX": kafka.prefix,
        "KAFKA__PARTITIONS": str(kafka.partitions),
        "CLICKHOUSE__SERVER": clickhouse.server,
        "CLICKHOUSE__DATABASE": clickhouse.database,
        "SINK__BATCH_MS": "50",
    } | options
    return ShopProcess(folder / "data", **{f"SHOPKEEPER__{name}": value for name, value in environment.items()})


def logged(folder: Path) -> set[str]:
    """Return the event ids in the log of the machine in `folder`; it has each but once."""
    with closing(SqliteLog(folder / "data" / "log.sqlite")) as log:
        ids = event_ids(log)
    assert len(ids) == len(set(ids))
    return set(ids)


def stored_count(settings: Settings) -> int:
    """Return how many events are in the tables; 0 while they cannot be asked."""
    try:
        with closing(open_store(settings)) as store:
            return int(store.query("SELECT uniqExact(event_id) FROM events").column(0)[0].as_py())
    except StoreError:
        return 0


def stored(settings: Settings) -> Counter[str]:
    """Return how often each event id is in the tables, a line at a time; nothing while they cannot be asked."""
    try:
        with closing(open_store(settings)) as store:
            return Counter(store.query("SELECT event_id FROM events FINAL").column("event_id").to_pylist())
    except StoreError:
        return Counter()
