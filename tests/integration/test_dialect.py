"""One dialect: whatever the project asks of the tables, chDB and a ClickHouse server answer alike."""

import ast
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from server import adapters
from server.adapters.chdb_store import ChdbStore
from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.memory_log import MemoryLog
from server.adapters.migrations import migrations
from server.adapters.sql_store import SqlStore
from server.ports import NewRecord, StoreError, StoreUnavailableError
from server.quality import examine
from server.readiness import facts_of
from server.workers.profile_fill import fill_profiles
from server.workers.replay import Fate, Mended, Replay
from server.workers.restore import DUMPS
from server.workers.rows import rows_of
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Control, Placement
from shopkeeper.v1.record_pb2 import DecidedSlate, Decision, DocumentChange, ItemChange, RecordKind
from tests.servers import ClickHouseServer, free_ports
from tests.table_shop import Shop, clickhouse_store, erasure, event, item, profile

SERVER = Path(adapters.__file__).parents[1]
UNHEARD = {
    "clickhouse_cluster.py",
    "log_erasure.py",
    "log_rows.py",
    "sqlite_log.py",
    "inbox.py",
    "outbox.py",
    "doctor.py",
}
"""Files whose statements are for a cluster alone, as test_clickhouse_cluster.py has them, or for SQLite."""
STATEMENT = re.compile(r"\s*(SELECT|ALTER TABLE|DELETE|SHOW|CREATE TABLE|WITH)\b")

Statement = tuple[str, Mapping[str, object], list[dict[str, Any]]]

RECORDS = [
    event("e1", "a", "b", user_id="u", price=2.5),
    event("e2", visitor_id="o'Neil\\\t]\n"),
    profile("v", {"size": "M\x00ü"}, training=True),
    profile("denied", training=False),
    item(ItemChange(item=Item(item_id="a", title="Brie", category_path=["FOOD", "CHEESE"]))),
    item(ItemChange(item=Item(item_id="b"), deleted=True)),
    NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "bad", b"\xff\x00'"),
    NewRecord(
        RecordKind.RECORD_KIND_DECISION,
        "v",
        "",
        Decision(
            now_ms=7, slates=[DecidedSlate(placement_id="home", item_ids="ab", scores=[0.1, 2], reasons=[1, 2])]
        ).SerializeToString(),
    ),
    NewRecord(
        RecordKind.RECORD_KIND_DOCUMENT,
        "",
        "",
        DocumentChange(placement=Placement(placement_id="home", description="ü")).SerializeToString(),
    ),
]
PINS = [
    NewRecord(
        RecordKind.RECORD_KIND_DOCUMENT,
        "",
        "",
        DocumentChange(
            control=Control(control_id=item_id, pin=Control.Pin(item_id=item_id, position=1))
        ).SerializeToString(),
    )
    for item_id in ("a", "later")
]


def heard(store: SqlStore, folder: Path) -> Iterator[Statement]:
    """Yield every statement that the whole life of the tables needs, with its answer."""
    statements: list[Statement] = []
    query = store.query

    def recorded(sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        answer = query(sql, params)
        statements.append((sql, params or {}, rows_of(answer)))
        return answer

    store.query = recorded  # type: ignore[method-assign]
    shop = Shop(store)
    shop.add(*RECORDS, *PINS)
    shop.sink.drain()
    shop.add(NewRecord(RECORDS[-1].kind, "", "placement/home", RECORDS[-1].payload))
    shop.sink.drain()
    shop.add(profile("v", {"city": "Ulm"}), item(ItemChange(item=Item(item_id="a", brand="X"), update_paths=["brand"])))
    shop.sink.drain()
    for table in ("events", "items", "profiles", "decisions", "documents", "bad_events", "sink_offsets"):
        store.query(f"SELECT * FROM {table} ORDER BY ALL")  # noqa: S608
    for name, select in {**store.exports(), **DUMPS}.items():
        store.query(select)
        store.write(folder / name, select)
        statements.append((f"export {name}", {}, pl.read_parquet(folder / name).to_dicts()))
    store._consent_default = False
    for select in store.exports().values():
        store.query(select)
    store._consent_default = True
    counted = store.shard_queries()
    for shard in range(2):
        sql = f"SELECT * FROM ({counted['events']}) AS lines ORDER BY ALL"  # noqa: S608
        store.query(sql, {"shard": shard, "shards": 2})
    store.query(counted["items"])
    examine(store, 10)
    facts_of(store, 10)
    assert [outcome.fate for outcome in Replay(store, shop.log).try_again()] == [Fate.BAD]
    mended = Mended(shop.log.read(0, 99)[6].offset, event("bad", "a").payload)
    assert [outcome.fate for outcome in Replay(store, shop.log).put_back([mended])] == [Fate.STORED]
    shop.add(NewRecord(RecordKind.RECORD_KIND_EVENT, "v", "worse", b"\xff"))
    shop.sink.drain()
    assert [outcome.fate for outcome in Replay(store, shop.log).dismiss([shop.log.last_offset()], 9)] == [
        Fate.DISMISSED
    ]
    shop.add(erasure("u"), erasure("o'Neil\\\t]\n"))
    shop.sink.drain()
    shop.another_sink()
    old = MemoryLog()
    old.append_later([profile("o'Neil", {"size": "M"}, training=False)], 1_000)
    for name in "ab":
        fill_profiles(old, store, f"test.profiles/{name}", threading.Event())
    store.query("SELECT event_id FROM events ORDER BY 1")
    for days in (9, 0):
        store._retention_days = days
        store.migrate()
    store.check()
    assert store.applied() == [one.name for one in migrations()]
    store.version()
    store.close()
    own = ("CREATE DATABASE", "EXISTS DATABASE", "USE", "INSERT INTO", "SELECT version")
    yield from (one for one in statements if not one[0].startswith(own) and " INTO OUTFILE " not in one[0])


def test_every_statement_is_answered_alike(tmp_path: Path, clickhouse_address: str) -> None:
    folders = [tmp_path / name for name in ("embedded", "server")]
    for folder in folders:
        folder.mkdir()
    embedded = list(heard(ChdbStore(tmp_path / "store"), folders[0]))
    server = list(heard(clickhouse_store(clickhouse_address), folders[1]))
    assert len(embedded) > len(migrations()) + 20
    assert [sql for sql, *_ in server] == [sql for sql, *_ in embedded]
    for ours, theirs in zip(embedded, server, strict=True):
        if not ours[0].startswith("SHOW CREATE"):  # its text differs by spaces and by the name of the database
            assert theirs == ours


def written() -> dict[str, str]:
    """Return the pattern of every statement that stands in the code of the server, with its place."""
    found = {}
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = [node] if isinstance(node, ast.Constant) else node.values if isinstance(node, ast.JoinedStr) else []
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if path.name not in UNHEARD and texts and isinstance(texts[0], str) and STATEMENT.match(texts[0]):
                pieces = one_line("".join("\0" if text is None else str(text) for text in texts)).strip()
                pattern = ".*".join(map(re.escape, pieces.split("\0")))
                found[pattern] = f"{path.name}:{node.lineno}"  # type: ignore[attr-defined]
    return found


def one_line(sql: str) -> str:
    return re.sub(r"\s+", " ", sql)


def test_every_statement_of_the_code_is_among_those_compared(tmp_path: Path) -> None:
    store = ChdbStore(tmp_path / "store")
    asked: list[str] = []
    query = store.query

    def listened(sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        asked.append(one_line(sql))
        return query(sql, params)

    store.query = listened  # type: ignore[method-assign]
    list(heard(store, tmp_path))
    text = "\n".join(dict.fromkeys(asked))
    patterns = written()
    assert len(patterns) > 30
    assert {place for pattern, place in patterns.items() if not re.search(pattern, text)} == set()


def test_too_old_server_is_refused_with_both_versions(clickhouse_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClickHouseStore, "version", lambda _: (24, 7))
    with pytest.raises(StoreError, match=r"ClickHouse 24\.7 is too old; take 24\.8 or newer"):
        clickhouse_store(clickhouse_address)


def test_absent_server_is_named() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StoreUnavailableError, match=rf"ClickHouse {address} does not answer \(.*\); start it"):
        clickhouse_store(address)


def test_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path) as server, pytest.raises(StoreError, match="refuses us") as caught:
        clickhouse_store(server.address, user="nobody", password="hush")  # noqa: S106
    assert "hush" not in str(caught.value)
