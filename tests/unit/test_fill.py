"""What a log knows is brought into tables, and topics are made, only where it followed the same Kafka topics."""

import threading
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from server import tables
from server.adapters.inbox import SqliteInbox
from server.adapters.sql_store import SqlStore
from server.cli.migration import migrated
from server.cli.output import CliError, Exit
from server.ports import StoreError
from server.settings import Settings, load_settings


def settings_of(folder: Path, prefix: str) -> Settings:
    servers = {"kafka.servers": "127.0.0.1:1", "clickhouse.server": "127.0.0.1:1"}
    return load_settings(None, {"data_dir": folder, "kafka.prefix": prefix, **servers})


def test_a_log_that_followed_another_prefix_fills_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled: list[str] = []
    monkeypatch.setattr(tables, "fill_profiles", lambda _log, _store, name, _stopping: filled.append(name))
    store, stopping = cast("SqlStore", None), threading.Event()
    with closing(SqliteInbox(settings_of(tmp_path, "old").log_path)) as inbox:
        inbox.take([], {"old.events/0": 4})
    with pytest.raises(StoreError, match=r"old\.events/0 was read before, which kafka\.prefix 'new' does not have"):
        tables.fill(settings_of(tmp_path, "new"), store, stopping)
    assert filled == []
    with pytest.raises(CliError, match=r"kafka\.prefix was changed") as told:
        migrated(settings_of(tmp_path, "new"), change_topics=False)
    assert told.value.code == Exit.CONFIG
    tables.fill(settings_of(tmp_path, "old"), store, stopping)
    assert [name.partition("/")[0] for name in filled] == ["old.profiles"]
