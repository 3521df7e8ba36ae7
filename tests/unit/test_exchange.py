"""The exchange ends as a whole, so that the supervisor starts it again as a whole."""

from contextlib import closing

import pytest

from server import exchange
from server.adapters.sqlite_log import SqliteLog
from server.settings import Settings, load_settings
from server.streams import FOLLOWED
from tests.table_shop import event


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setattr(exchange.signal, "signal", lambda *_: None)
    monkeypatch.setattr(exchange, "serve_metrics", lambda *_: None)
    return load_settings(None, {"data_dir": tmp_path, "kafka.servers": "127.0.0.1:1"})


@pytest.mark.parametrize("part", ["KafkaFeed", "SqliteInbox", "Follower"])
def test_follower_that_dies_ends_the_exchange(settings, monkeypatch, part):
    def broken(*_args: object, **_options: object) -> None:
        raise TypeError("unforeseen")

    monkeypatch.setattr(exchange, part, broken)
    with pytest.raises(TypeError, match="unforeseen"):
        exchange.run_exchange(settings, str)


def test_shipper_that_dies_ends_the_exchange(settings, monkeypatch):
    def broken(*_: object) -> None:
        raise TypeError("unforeseen")

    monkeypatch.setattr(exchange.Shipper, "run", broken)
    with pytest.raises(TypeError, match="unforeseen"):
        exchange.run_exchange(settings, str)


def test_snapshots_of_a_log_that_went_back_are_removed_before_it_grows(settings, monkeypatch):
    with closing(SqliteLog(settings.log_path)) as log:
        list(log.import_records([[event("e1", "a"), event("e2", "a")]], 0))
    settings.snapshot_dir.mkdir()
    for offset in (1, 2, 3):
        (settings.snapshot_dir / f"{offset:020d}.snapshot").touch()
    left = []

    class Done:
        def __init__(self, feed, _):
            assert set(feed._names.values()) == set(FOLLOWED)
            left.extend(sorted(int(path.stem) for path in settings.snapshot_dir.iterdir()))

        def catch_up(self, stopping):
            stopping.set()

        run = catch_up

    monkeypatch.setattr(exchange, "Follower", Done)
    exchange.run_exchange(settings, str)
    assert set(left) == {1, 2}
