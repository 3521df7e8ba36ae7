"""Tables spread over two shards answer as those of one server do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.adapters import clickhouse_cluster
from server.adapters.clickhouse_cluster import SHARDING, ClickHouseCluster, placed
from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.migrations import migrations
from server.adapters.sql_store import SqlStore, rows_of
from server.ports import StoreError, StoreUnavailableError
from server.settings import ClickHouseSettings, Settings
from server.tables import open_store, prepare_store
from tests.integration.test_dialect import heard
from tests.servers import ClickHouseServer
from tests.table_shop import Shop, clickhouse_store, erasure, event

NAME = "shop"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ClickHouseServer]]:
    servers = [ClickHouseServer(tmp_path_factory.mktemp(f"shard{number}")) for number in (1, 2)]
    for number, server in enumerate(servers, 1):
        server.join(NAME, number, [one.port for one in servers])
        server.start()
    yield servers
    for server in servers:
        server.stop()


def cluster_store(servers: list[ClickHouseServer], database: str) -> ClickHouseCluster:
    settings = ClickHouseSettings(server=servers[0].address, database=database, cluster=NAME)
    return ClickHouseCluster(settings)


def nodes(store: SqlStore) -> list[ClickHouseStore]:
    """Return the only node of each shard."""
    assert isinstance(store, ClickHouseCluster)
    return [store._node(at) for (at,) in store._shards]


def test_every_statement_is_answered_as_by_one_server(
    servers: list[ClickHouseServer], clickhouse_address: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("one", "cluster")]
    for folder in folders:
        folder.mkdir()
    single = list(heard(clickhouse_store(clickhouse_address), folders[0]))
    spread = list(heard(cluster_store(servers, "alike"), folders[1]))
    assert [sql for sql, *_ in spread] == [sql for sql, *_ in single]
    for ours, theirs in zip(spread, single, strict=True):
        if not ours[0].startswith("SHOW CREATE"):
            assert ours == theirs


def test_rows_are_spread_each_once_and_erased_everywhere(servers: list[ClickHouseServer]) -> None:
    store = cluster_store(servers, "spread")
    shop = Shop(store)
    shop.add(*(event(f"e{number}", "a", visitor_id=f"v{number % 20}") for number in range(200)))
    shop.sink.drain()
    store.query("ALTER TABLE sink_offsets DELETE WHERE name = 'log' SETTINGS mutations_sync = 2")
    shop.sink = shop.another_sink()
    assert shop.sink.drain() == 200, "as after a crash"
    assert shop.rows("SELECT count(), uniqExact(event_id) FROM events FINAL") == [(200, 200)]
    counts = [rows_of(one.query("SELECT uniqExact(visitor_id) FROM events_local"))[0][0] for one in nodes(store)]
    assert sum(counts) == 20
    assert min(counts) > 0, "both shards have some"
    shop.add(*(erasure(f"v{number}") for number in range(10)))
    shop.sink.drain()
    assert shop.rows("SELECT uniqExact(visitor_id) FROM events") == [(10,)]
    store.close()


def test_settings_choose_the_cluster(servers: list[ClickHouseServer], tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path, clickhouse={"server": servers[1].address, "database": "chosen", "cluster": NAME}
    )
    for opened in (prepare_store, prepare_store, open_store):
        store = opened(settings)
        assert store.applied() == [one.name for one in migrations()]
        engines = {
            (name, engine)
            for node in nodes(store)
            for name, engine in rows_of(node.query("SELECT name, engine FROM system.tables WHERE database = 'chosen'"))
        }
        store.close()
    local = {(f"{name}_local", "MergeTree" if name == "migrations" else "ReplacingMergeTree") for name in SHARDING}
    assert engines == local | {(name, "Distributed") for name in SHARDING}


def test_retention_of_all_shards_is_kept_until_it_is_told_anew(servers: list[ClickHouseServer]) -> None:
    store = cluster_store(servers, "retained")
    for days, found, options in ((30, 30, {"retain": False}), (7, 30, {"retain": False}), (7, 7, {}), (0, 0, {})):
        store._retention_days = days
        store.migrate(**options)
        assert bool(store.retention_fault()) == (days != found)
        for node in nodes(store):
            ((definition,),) = rows_of(node.query("SHOW CREATE TABLE events_local"))
            assert (f"toIntervalDay({found})" if found else "ENGINE") in definition
            assert ("\nTTL " in definition) == bool(found)
    store.close()


def test_unknown_cluster_is_named(servers: list[ClickHouseServer]) -> None:
    store = ClickHouseCluster(ClickHouseSettings(server=servers[0].address, cluster="nowhere"))
    with pytest.raises(StoreError, match="has no cluster nowhere; look at its remote_servers"):
        store.migrate()
    store.close()


def test_every_table_is_spread_by_a_column_of_its_key() -> None:
    statements = [sql for one in migrations() for sql in one.statements]
    created = {sql.split()[5]: sql for sql in statements if sql.startswith("CREATE TABLE")}
    assert set(created) == set(SHARDING) - {"migrations"}
    for table, sql in created.items():
        assert SHARDING[table] in sql.partition("ORDER BY")[2]
    assert all(placed(sql, NAME, "d", replicated=True) for sql in statements), "none runs on one node only"


def test_replicated_tables_are_made_and_changed_by_statements_that_the_server_takes(
    servers: list[ClickHouseServer],
) -> None:
    database = "replicated"
    node = ClickHouseStore(ClickHouseSettings(server=servers[0].address, database=database))
    node.make_database()
    for sql in (sql for one in migrations() for sql in one.statements):
        for one in placed(sql, NAME, database, replicated=True):
            node.query(one.sql if sql.startswith("CREATE") else f"EXPLAIN AST {one.sql}")
    made = rows_of(node.query("SELECT name, engine_full FROM system.tables WHERE database = 'replicated'"))
    engines = {name: engine for name, engine in made if name.endswith("_local")}
    assert {f"{name}_local" for name in SHARDING} - {"migrations_local"} == set(engines)
    for name, engine in engines.items():
        table = name.removesuffix("_local")
        assert engine.startswith(
            f"ReplicatedReplacingMergeTree('/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'"
        )
    node.close()


def test_a_change_goes_to_the_first_replica_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Node:
        def __init__(self, settings: ClickHouseSettings) -> None:
            asked.append(settings.server)
            if settings.server != "second:9000":
                raise StoreUnavailableError(f"{settings.server} is away")

        def query(self, sql: str, params: object) -> None:
            assert (sql, params) == ("ALTER TABLE events_local DELETE WHERE 1", None)

        def close(self) -> None:
            asked.append("closed")

    monkeypatch.setattr(clickhouse_cluster, "ClickHouseStore", Node)
    store = ClickHouseCluster.__new__(ClickHouseCluster)
    store._settings = ClickHouseSettings(server="first:9000", cluster=NAME)
    sql = "ALTER TABLE events_local DELETE WHERE 1"
    store._change(["first:9000", "second:9000"], sql, None)
    assert asked == ["first:9000", "second:9000"]
    with pytest.raises(StoreUnavailableError, match="third:9000 is away"):
        store._change(["first:9000", "third:9000"], sql, None)
