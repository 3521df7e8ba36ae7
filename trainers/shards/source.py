"""The event lines of one shard of visitors, straight from ClickHouse."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import polars as pl
from clickhouse_driver import Client
from clickhouse_driver import errors as faults

from trainers.dataset import Dataset

PASSWORD: Final = "SHOPKEEPER__CLICKHOUSE__PASSWORD"  # noqa: S105 - the name of a variable
_COLUMNS: Final = {
    "event_id": pl.String,
    "visitor_id": pl.String,
    "item_id": pl.String,
    "event_type": pl.String,
    "time_ms": pl.Int64,
}


class TablesError(ConnectionError):
    """The server of the tables does not answer, or refuses."""


@dataclass(frozen=True)
class Source:
    """Tables on a ClickHouse server, as `shopkeeper count` describes them in a file.

    Attributes
    ----------
    server : str
        host:port of the native protocol.
    database, user : str
    tls : bool
    ca : str
        File of the authority that signed the server's certificate; empty takes those of the system.
    settings : Mapping[str, object]
        Of every query.
    events : str
        Query of the event lines of one shard, with the parameters `shard` and `shards`.
    items : str
        Query of the item ids of the catalogue, in order.
    create_ms : int
        When the file was written, Unix milliseconds.
    time_zone : str
        Of the shop.
    password : str
        From the environment.
    """

    server: str
    database: str
    user: str
    tls: bool
    ca: str
    settings: Mapping[str, object]
    events: str
    items: str
    create_ms: int
    time_zone: str
    password: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what the file says, with the password of the environment.

        Raises
        ------
        ValueError
            When it is no such file.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")), password=os.environ.get(PASSWORD, ""))
        except TypeError as error:
            raise ValueError(f"{path} does not describe tables ({error}); `shopkeeper count` writes it") from error

    def shard(self, number: int, count: int) -> Dataset:
        """Return the lines of shard `number` of `count`; its id tables hold no more than these lines name.

        Raises
        ------
        TablesError
        """
        columns = self._ask(self.events, {"shard": number, "shards": count}) or [[] for _ in _COLUMNS]
        return Dataset.from_frames(pl.DataFrame(dict(zip(_COLUMNS, columns, strict=True)), _COLUMNS))

    def catalogue(self) -> list[str]:
        """Return the ids of the catalogue's items, in order; TablesError as of `shard`."""
        (ids,) = self._ask(self.items, {}) or [[]]
        return list(ids)

    def _ask(self, sql: str, params: Mapping[str, object]) -> Any:
        host, _, port = self.server.rpartition(":")
        client = Client(
            host.strip("[]"),
            port=int(port),
            database=self.database,
            user=self.user,
            password=self.password,
            client_name="shopkeeper trainers",
            compression="lz4",
            secure=self.tls,
            ca_certs=self.ca or None,
            settings=dict(self.settings),
        )
        try:
            return client.execute(sql, dict(params), columnar=True)
        except (faults.Error, OSError, EOFError) as error:
            raise TablesError(f"ClickHouse {self.server} does not give the events ({error}); look at it") from error
        finally:
            client.disconnect()
