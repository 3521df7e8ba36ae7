"""The table view on a ClickHouse cluster: the same SQL, with each statement about a table's making put on the nodes.

A table `x` becomes `x_local` on every node, replicated where shards have several, and `x`, which spreads rows by their
key and asks all shards. Rows of one key meet in one shard, so that `FINAL` leaves one of them as on a single server.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import pyarrow as pa

from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.sql_store import rows_of
from server.ports import StoreError, StoreUnavailableError

SHARDING: Final = {
    "events": "visitor_id",
    "items": "item_id",
    "profiles": "visitor_id",
    "statements": "visitor_id",
    "decisions": "log_offset",
    "bad_events": "log_offset",
    "sink_offsets": "name",
    "documents": "document_id",
    "erasures": "visitor_id",
    "migrations": "name",
}
"""Column of each table's key by which its rows are spread."""

_CREATE: Final = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<table>\w+)(?P<columns>.*)ENGINE = (?P<engine>\w*MergeTree)"
    r"(?:\((?P<version>\w*)\))?(?P<rest>.*)",
    re.DOTALL,
)
_ALTER: Final = re.compile(r"ALTER TABLE (?P<table>\w+)\s+(?P<change>.*)", re.DOTALL)
_CHANGES: Final = re.compile(r"(CREATE|ALTER) TABLE ")
_SHOW: Final = re.compile(r"SHOW CREATE TABLE (?P<table>\w+)$")
_NODES: Final = """
SELECT shard_num, host_name, port FROM system.clusters WHERE cluster = {name:String} ORDER BY shard_num, replica_num
"""
_SETTINGS: Final = {
    "distributed_product_mode": "global",
    "distributed_foreground_insert": 1,
    "prefer_localhost_replica": 0,
    "load_balancing": "in_order",  # of a shard's replicas always the first that lives: the sink reads what it wrote
}


class Placed(NamedTuple):
    """Statement and where it runs."""

    sql: str
    on_replicas: bool = False
    """Whether on every node; else once a shard, whose replicas follow."""


def placed(sql: str, cluster: str, database: str, *, replicated: bool) -> list[Placed]:
    """Return the statements that stand for one that makes or changes a table; none for any other."""
    if found := _CREATE.match(sql):
        table, engine, version = found["table"], found["engine"], found["version"] or ""
        if replicated:
            path = f"'/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'"
            engine, version = f"Replicated{engine}", f"{path}, {version}" if version else path
        local = f"CREATE TABLE IF NOT EXISTS {table}_local{found['columns']}ENGINE = {engine}({version}){found['rest']}"
        spread = f"Distributed('{cluster}', '{database}', '{table}_local', cityHash64({SHARDING[table]}))"
        return [
            Placed(local, on_replicas=True),
            Placed(f"CREATE TABLE IF NOT EXISTS {table} AS {table}_local ENGINE = {spread}", on_replicas=True),
        ]
    if found := _ALTER.match(sql):
        local = f"ALTER TABLE {found['table']}_local {found['change']}"
        if found["change"].startswith("ADD COLUMN"):
            return [Placed(local), Placed(sql, on_replicas=True)]
        return [Placed(local)]
    return []


class ClickHouseCluster(ClickHouseStore):
    """`EventStore` in one database of every node of a cluster.

    The nodes are those of `system.clusters`, reached with the user and the password of the settings. Where shards have
    several, tables are replicated, by the macros `shard` and `replica` and by a Keeper.

    Parameters
    ----------
    settings : a node that we ask, the name of the cluster
    options : as of `ClickHouseStore`

    Raises
    ------
    StoreUnavailableError : no replica of a shard answers a change; for tables that are made, one of all nodes
    StoreError : the server has no such cluster
    """

    query_settings = _SETTINGS

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter; empty where it has none."""
        settings = self._settings
        if shown := _SHOW.match(sql):
            return super().query(f"SHOW CREATE TABLE {shown['table']}_local")
        if not _CHANGES.match(sql):
            return super().query(sql, params)
        replicated = any(len(shard) > 1 for shard in self._shards)
        for one in placed(sql, settings.cluster, settings.database, replicated=replicated):
            for shard in self._shards:
                if one.on_replicas:
                    for at in shard:
                        self._node(at).query(one.sql, params)
                else:
                    self._change(shard, one.sql, params)
        return pa.table({})

    def make_database(self) -> None:
        """Make the database on every node where there is none."""
        super().make_database()
        for at in (at for shard in self._shards for at in shard):
            self._node(at).make_database()

    def close(self) -> None:
        """Close the connections."""
        for node in self._nodes.values():
            node.close()
        super().close()

    def _change(self, shard: Sequence[str], sql: str, params: Mapping[str, object] | None) -> None:
        """Run a statement on the first replica that answers; the others of the shard follow it."""
        for number, at in enumerate(shard, 1):
            try:
                self._node(at).query(sql, params)
            except StoreUnavailableError:
                if number == len(shard):
                    raise
            else:
                return

    def _node(self, at: str) -> ClickHouseStore:
        """Return the node of an address, connected to when it is first needed."""
        if at not in self._nodes:
            self._nodes[at] = ClickHouseStore(self._settings.model_copy(update={"server": at}))
        return self._nodes[at]

    @cached_property
    def _nodes(self) -> dict[str, ClickHouseStore]:
        return {}

    @cached_property
    def _shards(self) -> list[list[str]]:
        """The addresses of the nodes of each shard."""
        name = self._settings.cluster
        shards: dict[int, list[str]] = {}
        for shard, host, port in rows_of(super().query(_NODES, {"name": name})):
            shards.setdefault(shard, []).append(f"{host}:{port}")
        if not shards:
            raise StoreError(f"ClickHouse {self._settings.server} has no cluster {name}; look at its remote_servers")
        return list(shards.values())
