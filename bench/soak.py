"""Half an hour at half load: does memory, lag or an error grow? `python bench/soak.py --minutes 30`.

Two machines with a real Kafka and a real ClickHouse, those of the tests. First both are driven as fast as they answer,
and the whole path is timed until the tables have all; half of that is then sent for as long as asked. Every few
seconds the memory of each process and all that waits anywhere is noted; at the end every event is counted.
"""

import asyncio
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.request import urlopen

import typer
from measure import machine, quantile, require
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from soak_load import BATCH, PAGES, Load
from soak_plot import draw

from server.adapters.clickhouse_store import ClickHouseStore
from server.settings import ClickHouseSettings
from shopkeeper.aio import AsyncClient
from tests.servers import ClickHouseServer, KafkaServer, free_ports
from tests.shop_process import ShopProcess

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).parent / "results"
CHILDREN: Final = ("replica", "sink", "exchange")
"""Processes of a machine, in the order of their ports of metrics."""
WAITING: Final = {
    "shopkeeper_outbox_records": "outbox",
    "shopkeeper_outbox_age_seconds": "outbox_age_s",
    "shopkeeper_partition_lag_records": "kafka_lag",
    "shopkeeper_log_lag_records": "replica_lag",
    "shopkeeper_sink_lag_records": "sink_lag",
}
"""What is added up of all machines, and its name in the samples."""
LAGS: Final = (*WAITING.values(), "late_s")
"""What may not grow from the middle third of the time to the last."""
LAG_GROWTH: Final = 1.5
LAG_S: Final = 5.0
"""Seconds of lag, or of events at full load, that a last third may have whatever the middle one had."""
MEMORY_GROWTH: Final = 1.1
MEMORY_MIB: Final = 16.0
"""Of each of our processes, beside the growth, from the middle third to the last."""
FAULTS: Final = ("shopkeeper_rpc_errors_total", "shopkeeper_decisions_dropped", "shopkeeper_bad_records_total")

_PATIENCE_S: Final = 600.0
_MIB: Final = 1_048_576
_errors = Console(stderr=True, highlight=False)


class Machine(NamedTuple):
    """Server of one machine."""

    name: str
    data_dir: Path
    process: ShopProcess
    metrics_port: int

    def metrics(self) -> Iterator[tuple[str, str, float]]:
        """Yield process, name and value of every sample that Prometheus would read."""
        for index, child in enumerate(CHILDREN):
            with urlopen(f"http://127.0.0.1:{self.metrics_port + index}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    yield f"{self.name} {child}", sample.name, sample.value

    def event_count(self) -> int:
        """Return how many events its log has."""
        with closing(sqlite3.connect(f"file:{self.data_dir / 'log.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM records WHERE kind = 1").fetchone()[0])


class Cluster(NamedTuple):
    """All that runs."""

    machines: tuple[Machine, ...]
    store: ClickHouseStore
    servers: dict[str, int]
    """Process id by name."""

    def stored(self) -> int:
        """Return how many events the tables have, and fail where one is there twice."""
        sql = "SELECT count(), uniqExact(event_id) FROM events FINAL"
        lines, events = (column[0].as_py() for column in self.store.query(sql).columns)
        require(lines == events, f"{lines - events} events are in the tables twice")
        return int(events)


def main(
    minutes: Annotated[float, typer.Option(min=0.2, help="How long the load goes on.")] = 30.0,
    every_s: Annotated[float, typer.Option(min=1.0, help="Seconds between two samples.")] = 10.0,
    capacity_s: Annotated[float, typer.Option(min=1.0, help="Seconds at full load before.")] = 20.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write them to bench/results, which is committed, not to data.")
    ] = False,
) -> None:
    """Run the soak, print what was seen, and write soak.json and its plot where all is as it should be."""
    (ROOT / "data").mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "data", prefix="soak-")))
        cluster = _start(stack, folder)
        figures = asyncio.run(_soak(cluster, minutes * 60, every_s, capacity_s))
        for one in cluster.machines:
            require(one.process.stop() == 0, "a server did not stop in good order")
    figures |= {"command": f"python bench/soak.py --minutes {minutes:g}", "machine": machine()}
    check(figures)
    out = RESULTS if keep else ROOT / "data"
    (out / "soak.json").write_text(json.dumps(figures) + "\n", encoding="utf-8")
    draw(figures, out / "soak.svg")
    typer.echo(json.dumps({name: value for name, value in figures.items() if name != "samples"}, indent=2))


def _start(stack: ExitStack, folder: Path) -> Cluster:
    """Start Kafka, ClickHouse and two machines; all end with `stack`."""
    kafka = stack.enter_context(KafkaServer(folder / "kafka"))
    clickhouse = stack.enter_context(ClickHouseServer(folder / "clickhouse"))
    environment = {
        "SHOPKEEPER__KAFKA__SERVERS": kafka.address,
        "SHOPKEEPER__KAFKA__REPLICATION": "1",
        "SHOPKEEPER__CLICKHOUSE__SERVER": clickhouse.address,
        "SHOPKEEPER__LOG_LEVEL": "warning",
        "SHOPKEEPER__CLOCK__START": "",
        "SHOPKEEPER__CLOCK__RATE": "1",
    }
    command = [sys.executable, "-m", "server.cli", "migrate", "--data-dir", str(folder / "a")]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    machines = []
    for name in "ab":
        data_dir = folder / name / "data"
        data_dir.mkdir(parents=True)
        port = _ports_in_a_row(len(CHILDREN))
        process = stack.enter_context(ShopProcess(data_dir, **environment, SHOPKEEPER__METRICS__PORT=str(port)))
        process.call("ModelService/ListModels", b"")
        machines.append(Machine(name, data_dir, process, port))
    store = ClickHouseStore(ClickHouseSettings(server=clickhouse.address))
    stack.callback(store.close)
    return Cluster(tuple(machines), store, {"Kafka": kafka.pid, "ClickHouse": clickhouse.pid})


def _ports_in_a_row(count: int) -> int:
    """Return a port after which the next ones are free too."""
    for _ in range(100):
        (first,) = free_ports(1)
        if not any(_is_taken(first + index) for index in range(count)):
            return first
    raise OSError("no ports in a row are free")


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _soak(cluster: Cluster, seconds: float, every_s: float, capacity_s: float) -> dict[str, Any]:
    clients = [AsyncClient(f"127.0.0.1:{one.process.port}", timeout_s=5) for one in cluster.machines]
    load = Load(clients)
    await load.prepare()
    turns = await _capacity(cluster, load, capacity_s)
    samples = []
    started = time.perf_counter()
    async with load.at_rate(turns / 2):
        while (passed := time.perf_counter() - started) < seconds:
            await asyncio.sleep(every_s - passed % every_s)
            samples.append(await _sample(cluster, load, time.perf_counter() - started))
    await _arrived(cluster, load)
    for client in clients:
        await client.close()
    counts = {f"log of {one.name}": one.event_count() for one in cluster.machines} | {"tables": cluster.stored()}
    return {
        "minutes": round(seconds / 60, 1),
        "full_load": {"events_per_s": round(turns * BATCH, 1), "pages_per_s": round(turns * PAGES, 1)},
        "acknowledged": load.acknowledged,
        "unanswered": load.unanswered,
        "counts": counts,
        "errors": dict(load.errors),
        **_growth(samples),
        "samples": samples,
    }


def check(figures: dict[str, Any]) -> None:
    """Fail unless every acknowledged event is everywhere once, no call failed, and neither lag nor memory grows.

    Raises
    ------
    WrongAnswerError : something of it is not so
    """
    counts, least = figures["counts"], figures["acknowledged"]
    is_whole = len(set(counts.values())) == 1 and least <= counts["tables"] <= least + figures["unanswered"]
    require(is_whole, f"of {least:,} acknowledged events there are {counts}")
    require(not figures["errors"], f"calls failed: {figures['errors']}")
    require(not figures["faults_of_servers"], f"the servers count {figures['faults_of_servers']:g} faults")
    soon = {name: LAG_S * (1 if name.endswith("_s") else figures["full_load"]["events_per_s"]) for name in LAGS}
    for name, (before, after) in figures["middle_and_last_third"].items():
        if name in LAGS:
            require(after <= max(LAG_GROWTH * before, soon[name]), f"{name} grows from {before:g} to {after:g}")
    for name, (before, after) in figures["memory_mib_middle_and_last_third"].items():
        is_ours = " " in name
        most = MEMORY_GROWTH * before + MEMORY_MIB
        require(not is_ours or after <= most, f"the memory of {name} grows from {before:g} to {after:g} MiB")


async def _capacity(cluster: Cluster, load: Load, seconds: float) -> float:
    """Return the turns a second that go the whole way, into the tables and the logs of both machines."""
    started = time.perf_counter()
    turns = await load.capacity(seconds, lanes=2 * len(cluster.machines))
    await _arrived(cluster, load)
    passed = time.perf_counter() - started
    _errors.print(f"full load: {turns * BATCH:,} events and {turns * PAGES:,} pages in {passed:.1f} s")
    load.take_window()
    return turns / passed


async def _arrived(cluster: Cluster, load: Load) -> None:
    """Wait until every log and the tables have all that was acknowledged."""
    deadline = time.perf_counter() + _PATIENCE_S
    counts = [cluster.stored, *(one.event_count for one in cluster.machines)]
    while min([await asyncio.to_thread(count) for count in counts]) < load.acknowledged:
        require(time.perf_counter() < deadline, "acknowledged events do not arrive")
        await asyncio.sleep(0.2)


async def _sample(cluster: Cluster, load: Load, passed_s: float) -> dict[str, Any]:
    window = load.take_window()
    waiting, memory_mib, faults = await asyncio.to_thread(_measure, cluster)
    return {
        "second": round(passed_s, 1),
        "memory_mib": memory_mib,
        **waiting,
        "faults": faults,
        "events": len(window.batches_ms) * BATCH,
        "pages": len(window.pages_ms),
        "page_p50_ms": _quantile(window.pages_ms, 0.5),
        "page_p99_ms": _quantile(window.pages_ms, 0.99),
        "batch_p99_ms": _quantile(window.batches_ms, 0.99),
        "late_s": round(window.late_s, 3),
    }


def _quantile(values: list[float], share: float) -> float | None:
    return round(quantile(values, share), 2) if values else None


def _measure(cluster: Cluster) -> tuple[dict[str, float], dict[str, float], float]:
    """Return what waits, the memory of each process in MiB, and how much went wrong so far, as the servers count it."""
    waiting = dict.fromkeys(WAITING.values(), 0.0)
    memory: dict[str, float] = {name: _resident_mib(pid) for name, pid in cluster.servers.items()}
    faults = 0.0
    for one in cluster.machines:
        for process, name, value in one.metrics():
            if name in WAITING:
                waiting[WAITING[name]] += round(value, 2)
            elif name == "process_resident_memory_bytes":
                memory[process] = round(value / _MIB, 1)
            elif name in FAULTS:
                faults += value
        memory[f"{one.name} parent"] = _resident_mib(one.process.pid)
    return waiting, memory, faults


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / _MIB, 1)


def _growth(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how the last third of the time differs from the third before it, by medians."""
    third = max(1, len(samples) // 3)
    before, after = samples[-2 * third : -third] or samples[:1], samples[-third:]

    def both(pick: Any) -> list[float]:
        values = ([value for value in map(pick, part) if value is not None] for part in (before, after))
        return [round(statistics.median(part), 2) for part in values]

    memory = {name: both(lambda sample, name=name: sample["memory_mib"][name]) for name in samples[-1]["memory_mib"]}
    names = (*WAITING.values(), "page_p50_ms", "page_p99_ms", "batch_p99_ms", "late_s")
    return {
        "middle_and_last_third": {name: both(lambda sample, name=name: sample[name]) for name in names},
        "memory_mib_middle_and_last_third": memory,
        "faults_of_servers": samples[-1]["faults"],
    }


if __name__ == "__main__":
    typer.run(main)
