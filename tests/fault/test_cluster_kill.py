"""Machines of a cluster are killed, stopped and cut off under load: each event counts once, pages go on coming."""

import random
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.settings import Settings
from tests.cluster_shop import cluster_settings, logged, start, stored, stored_count
from tests.servers import ClickHouseServer, KafkaServer
from tests.shop_load import LINES, Load, Visits, answers, fill_catalogue, is_full, served_count
from tests.shop_process import ShopProcess
from tests.table_shop import wait_until

LAG_S = 180.0
"""A sink that was killed keeps its partitions until its session ends, 10 s later."""


@pytest.fixture
def settings(kafka: KafkaServer, clickhouse: ClickHouseServer, tmp_path: Path) -> Settings:
    return cluster_settings(kafka.address, clickhouse.address, tmp_path / "a" / "data")


class Ledger:
    """What was sent, and what the servers said of it."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.sent_count = self.rejected_count = 0

    def add(self, load: Load) -> None:
        self.acknowledged |= load.acknowledged
        self.sent_count += load.sent_count
        self.rejected_count += load.rejected_count


def assert_each_once(
    ledger: Ledger,
    settings: Settings,
    clickhouse: ClickHouseServer,
    machines: Mapping[Path, ShopProcess],
    patience_s: float = LAG_S,
) -> None:
    """Check that sent = stored + rejected, and that tables and engines have every acknowledged event once."""

    def has_arrived() -> bool:
        clickhouse.revive()
        time.sleep(0.2)
        return stored_count(settings) >= len(ledger.acknowledged) and ledger.acknowledged <= stored(settings).keys()

    wait_until(has_arrived, patience_s)
    in_tables, logs = stored(settings), [logged(folder) for folder in machines]
    in_logs = set().union(*logs)
    wait_until(lambda: all(served_count(machine) >= len(in_logs) for machine in machines.values()), patience_s)
    print(f"{ledger.sent_count} answered, {ledger.rejected_count} rejected, {len(in_tables)} stored")
    assert set(in_tables.values()) == {LINES}
    assert [served_count(machine) for machine in machines.values()] == [len(in_logs)] * len(machines)
    assert in_tables.keys() <= in_logs
    assert len(ledger.acknowledged) == ledger.sent_count - ledger.rejected_count > 0


@pytest.mark.timeout(4800)
@pytest.mark.parametrize("rounds", [4, pytest.param(30, marks=pytest.mark.soak)])
def test_machines_that_are_killed_at_random_lose_and_double_nothing(
    settings: Settings, clickhouse: ClickHouseServer, tmp_path: Path, rounds: int
) -> None:
    """The engine that stands in for ClickHouse aborts when a client dies amid its work; it is started again then."""
    chance = random.Random(rounds)
    ledger = Ledger()
    with ExitStack() as stack:
        machines = {name: stack.enter_context(start(settings, tmp_path / name)) for name in "ab"}
        fill_catalogue(machines["a"])
        answers(machines["b"])
        wait_until(lambda: is_full(machines["b"]))
        loads = {name: Load(f"{name}-0").on(machine) for name, machine in machines.items()}
        for number in range(1, rounds + 1):
            victim, other = chance.sample("ab", 2)
            with Visits(machines[other]) as visits:
                time.sleep(chance.uniform(0.05, 1.5))
                machines[victim].kill()
                loads[victim].join()
                machines[victim] = stack.enter_context(start(settings, tmp_path / victim))
                answers(machines[victim])
            assert visits.faults == []
            clickhouse.revive()
            ledger.add(loads[victim])
            loads[victim] = Load(f"{victim}-{number}", loads[victim].unanswered).on(machines[victim])
        for name, machine in machines.items():
            assert machine.stop() == 0, "SIGTERM under load ends in good order"
            loads[name].join()
            ledger.add(loads[name])
        again = {tmp_path / name: stack.enter_context(start(settings, tmp_path / name)) for name in "ab"}
        assert_each_once(ledger, settings, clickhouse, again)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("outage_s", [1.0, pytest.param(120.0, marks=pytest.mark.soak)])
def test_pages_and_acknowledgements_go_on_while_kafka_and_clickhouse_are_away(
    settings: Settings, kafka: KafkaServer, clickhouse: ClickHouseServer, tmp_path: Path, outage_s: float
) -> None:
    """Both are absent at the start; then each is killed, and each hangs."""
    kafka.stop()
    clickhouse.stop()
    ledger = Ledger()
    with start(settings, tmp_path / "a") as machine:
        fill_catalogue(machine)
        load = Load("a", patient=True)
        with Visits(machine) as visits:
            load.on(machine)
            time.sleep(outage_s)
            wait_until(lambda: bool(load.acknowledged))
            kafka.start()
            clickhouse.start()
            for server in (kafka, clickhouse):
                server.kill()
                time.sleep(outage_s)
                server.start()
                server.pause()
                time.sleep(outage_s)
                server.resume()
            load.stop()
        assert load.faults == Counter()
        assert visits.faults == []
        ledger.add(load)
        print(f"{len(visits.seconds)} pages, the slowest in {max(visits.seconds):.2f} s")
        assert_each_once(ledger, settings, clickhouse, {tmp_path / "a": machine}, LAG_S + 4 * outage_s)
