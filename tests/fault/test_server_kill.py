"""kill -9 of the whole server under event load: nothing acknowledged is lost, nothing is doubled, answers come back."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from server.adapters.chdb_store import ChdbStore
from server.adapters.sqlite_log import SqliteLog
from server.settings import Settings
from server.workers.log_feed import LogFeed
from server.workers.sink import Sink
from shopkeeper.v1.event_pb2 import Event
from tests.shop_load import BATCH, LINES, Load, answers, fill_catalogue, served_count
from tests.shop_process import ShopProcess
from tests.table_shop import wait_until
from tests.whole_log import event_ids


def stored_events(data_dir: Path) -> tuple[set[str], Counter[str]]:
    """Return the event ids in the log, and how often each is, by line, in the table."""
    settings = Settings(data_dir=data_dir)
    log, store = SqliteLog(data_dir / "log.sqlite"), ChdbStore(settings.store_dir)
    store.migrate()
    Sink(LogFeed(log), store, settings.sink).drain()
    rows = store.query("SELECT event_id, line FROM events FINAL").to_pydict()
    in_table = Counter(f"{name}#{line}" for name, line in zip(rows["event_id"], rows["line"], strict=True))
    in_log = set(event_ids(log))
    log.close()
    store.close()
    return in_log, in_table


def run_rounds(data_dir: Path, rounds: int) -> set[str]:
    """Load and kill the server `rounds` times; return the acknowledged event ids."""
    chance = random.Random(7)
    acknowledged: set[str] = set()
    backlogs: list[list[Event]] = [[], [], []]
    for number in range(rounds):
        with ShopProcess(data_dir) as shop:
            if number == 0:
                fill_catalogue(shop)
            answers(shop)
            loads = [Load(f"{lane}-{number}", backlog).on(shop) for lane, backlog in enumerate(backlogs)]
            wait_until(lambda: all(load.acknowledged for load in loads))  # noqa: B023 - it ends in this round
            time.sleep(chance.uniform(0.05, 1.5))
            shop.kill()
            for load in loads:
                load.join()
        backlogs = [load.unanswered for load in loads]
        acknowledged.update(*(load.acknowledged for load in loads))
    return acknowledged


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rounds", [4, pytest.param(30, marks=pytest.mark.soak)])
def test_nothing_acknowledged_is_lost_or_doubled(tmp_path, rounds):
    data_dir = tmp_path / "data"
    acknowledged = run_rounds(data_dir, rounds)
    assert len(acknowledged) > rounds * BATCH
    with ShopProcess(data_dir) as shop:
        before = answers(shop)
        shop.kill()
    with ShopProcess(data_dir) as shop:
        assert answers(shop) == before, "a restart changed an answer"
        served = [served_count(shop)]
        assert shop.stop() == 0
    with ShopProcess(data_dir) as shop:
        assert answers(shop) == before, "a restart from the snapshot changed an answer"
        served.append(served_count(shop))
        assert shop.stop() == 0
    in_log, in_table = stored_events(data_dir)
    print(f"{len(acknowledged)} acknowledged, {len(in_log)} in the log, {len(in_table)} lines in the table")
    assert acknowledged <= in_log
    assert served == [len(in_log)] * 2, "the engine counted each event once"
    assert in_table.keys() == {f"{name}#{line}" for name in in_log for line in range(LINES)}
    assert set(in_table.values()) == {1}
