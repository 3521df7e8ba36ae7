"""Two machines of one shop with Kafka between them and their tables in ClickHouse: `make cluster`.

Both servers are those of the tests. The Complete Journey is imported at one machine and goes the whole way: its log,
Kafka, the log of the other machine, the replicas of both, the tables. All is counted at every end. Then views at one
machine are looked for in the answers of the other.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer
from measure import machine, quantile, require
from rich.console import Console
from rich.table import Table
from views import lags_ms, last_viewed

from server.adapters.clickhouse_store import ClickHouseStore
from server.settings import ClickHouseSettings
from shopkeeper.aio import AsyncClient, event
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE
from tests.servers import ClickHouseServer, KafkaServer
from tests.shop_process import ShopProcess

RESULTS: Final = Path(__file__).parent / "results" / "cluster.json"
ROOT: Final = Path(__file__).parents[1]
SHARE_UNTIL: Final = "2017-02-01"
"""Day before which purchases are imported unless all are asked for. The clock of the shop stands still at the end."""
YEAR_END: Final = "2018-01-03"

_PATIENCE_S: Final = 1_800.0
_PAUSE_S: Final = 0.001
_ITEMS: Final = 500
_COMPARED: Final = 50
_SHOWN: Final = 5

_errors = Console(stderr=True, highlight=False)


class Machine(NamedTuple):
    """Server of one machine."""

    data_dir: Path
    process: ShopProcess

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.process.port}"

    def count(self, kind: int) -> int:
        """Return how many records of a kind its log has."""
        with closing(sqlite3.connect(f"file:{self.data_dir / 'log.sqlite'}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM records WHERE kind = ?", (kind,)).fetchone()[0])


def main(
    whole: Annotated[bool, typer.Option("--whole", help="Import the whole year in place of its first month.")] = False,
    views: Annotated[int, typer.Option(min=300, help="Views whose lag is measured.")] = 1_000,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write them to bench/results, which is committed, not to data.")
    ] = False,
) -> None:
    """Run the cluster, print what was seen, and write it to data/cluster.json."""
    (ROOT / "data").mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=ROOT / "data", prefix="cluster-")))
        store, machines = _start(stack, folder, whole=whole)
        imported = _import(machines, store, whole=whole)
        fresh = asyncio.run(_fresh(machines, store, views))
        for one in machines:
            require(one.process.stop() == 0, "a server did not stop in good order")
    figures = {"import": imported, **fresh, "command": _command(whole=whole), "machine": machine()}
    path = write(figures, whole=whole, keep=keep)
    if json_:
        typer.echo(json.dumps(figures))
    else:
        _print(figures)
    _say(f"the figures are in {path}")


def write(figures: dict[str, Any], *, whole: bool, keep: bool) -> Path:
    """Write figures beside those of the other span, and return where: among the committed results if they are kept."""
    path = RESULTS if keep else ROOT / "data" / RESULTS.name
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    known["year" if whole else "month"] = figures
    path.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    return path


def _command(*, whole: bool) -> str:
    return "make cluster ARGS=--whole" if whole else "make cluster"


def _start(stack: ExitStack, folder: Path, *, whole: bool) -> tuple[ClickHouseStore, tuple[Machine, Machine]]:
    """Start Kafka, ClickHouse and two machines; all end with `stack`."""
    _say("start Kafka and ClickHouse")
    kafka = stack.enter_context(KafkaServer(folder / "kafka"))
    clickhouse = stack.enter_context(ClickHouseServer(folder / "clickhouse"))
    environment = {
        "SHOPKEEPER__KAFKA__SERVERS": kafka.address,
        "SHOPKEEPER__KAFKA__REPLICATION": "1",
        "SHOPKEEPER__CLICKHOUSE__SERVER": clickhouse.address,
        "SHOPKEEPER__LOG_LEVEL": "warning",
        "SHOPKEEPER__CLOCK__START": f"{YEAR_END if whole else SHARE_UNTIL}T12:00:00Z",
    }
    os.environ.update(environment)
    _shopkeeper("migrate", "--data-dir", str(folder / "a"))
    _say("start two machines")
    machines = []
    for name in ("a", "b"):
        data_dir = folder / name / "data"
        data_dir.mkdir(parents=True)
        process = stack.enter_context(ShopProcess(data_dir, **environment))
        machines.append(Machine(data_dir, process))
        asyncio.run(_answers(machines[-1]))
    store = ClickHouseStore(ClickHouseSettings(server=clickhouse.address))
    stack.callback(store.close)
    return store, (machines[0], machines[1])


async def _answers(one: Machine) -> None:
    """Return once the machine answers."""
    await asyncio.to_thread(one.process.call, "ModelService/ListModels", b"")


def _shopkeeper(*arguments: str) -> dict[str, Any]:
    """Return what a command of the command line answers."""
    command = [sys.executable, "-m", "server.cli", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    require(done.returncode == 0, f"{' '.join(arguments)} ended with status {done.returncode}: {done.stdout}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _import(machines: tuple[Machine, Machine], store: ClickHouseStore, *, whole: bool) -> dict[str, Any]:
    """Import at the first machine; return counts and the seconds until each view has all of it."""
    here, there = machines
    span = [] if whole else ["--until", SHARE_UNTIL]
    _say(f"import the Complete Journey{'' if whole else f' until {SHARE_UNTIL}'} at the first machine")
    before = there.count(1), here.count(1)
    require(before == (0, 0), "the logs are not empty")
    started = time.perf_counter()
    report = _shopkeeper("import", "complete-journey", "--data-dir", str(here.data_dir), *span)
    seconds = {"in its log": time.perf_counter() - started}
    events = here.count(1)
    records = report["stored"]
    goals: dict[str, Callable[[], bool]] = {
        "in the log of the other machine": lambda: there.count(1) >= events,
        "in the tables": lambda: _stored(store) >= events,
    }
    deadline = time.perf_counter() + _PATIENCE_S
    while goals:
        for name in [name for name, is_reached in goals.items() if is_reached()]:
            seconds[name] = time.perf_counter() - started
            _say(f"{events:,} events are {name} after {seconds[name]:.1f} s")
            del goals[name]
        require(time.perf_counter() < deadline, "the import does not arrive")
        time.sleep(0.1)
    counts = {"log here": events, "log there": there.count(1), "tables": _stored(store)}
    require(set(counts.values()) == {events}, f"events were lost or doubled: {counts}")
    return {
        "records": records,
        "events": events,
        "lines": report["rows"],
        "counts": counts,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "records_per_s": round(records / max(seconds.values())),
    }


def _stored(store: ClickHouseStore) -> int:
    return int(store.query("SELECT countIf(line = 0) FROM events FINAL").column(0)[0].as_py())


async def _fresh(machines: tuple[Machine, Machine], store: ClickHouseStore, views: int) -> dict[str, Any]:
    """Return how the other machine's answers change, and how soon."""
    sql = f"SELECT item_id FROM items FINAL WHERE availability = 'available' ORDER BY item_id LIMIT {_ITEMS}"  # noqa: S608
    items = store.query(sql).column(0).to_pylist()
    visitors = store.query(
        f"SELECT DISTINCT visitor_id FROM events ORDER BY visitor_id LIMIT {_COMPARED}"  # noqa: S608
    )
    with _clients(machines) as (here, there):
        async with here, there:
            await _until_viewed(here, there, items[0])
            alike = await _alike(here, there, visitors.column(0).to_pylist())
            changed = await _change(here, there, items)
            _say(f"measure the lag of {views:,} views")
            lags = await lags_ms(here, there, items, views, pause_s=_PAUSE_S)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    lag = {name: round(quantile(lags, share), 1) for name, share in shares.items()} | {"max": round(max(lags), 1)}
    return {"both_machines": alike, "changed_answer": changed, "lag_ms": lag, "views": len(lags)}


@contextmanager
def _clients(machines: tuple[Machine, Machine]) -> Iterator[tuple[AsyncClient, AsyncClient]]:
    here, there = (AsyncClient(one.address, timeout_s=10) for one in machines)
    yield here, there


async def _until_viewed(here: AsyncClient, there: AsyncClient, item: str) -> None:
    """Wait until the other machine has applied all that came before."""
    await lags_ms(here, there, [item], 1, pause_s=_PAUSE_S)


async def _alike(here: AsyncClient, there: AsyncClient, visitors: list[str]) -> dict[str, Any]:
    """Return how alike both machines are to the same visitors.

    What they know of a visitor has to be equal. Slates may differ where scores tie: sources break ties by the numbers
    of items, which every log deals in its own order.
    """
    equal, same, common = 0, 0, 0.0
    for visitor in visitors:
        states = [(await one.profile(visitor)).live_state for one in (here, there)]
        ours, theirs = [await _chosen(one, visitor) for one in (here, there)]
        equal += states[0] == states[1]
        same += ours == theirs
        common += len(set(ours) & set(theirs)) / max(len(ours), 1)
    require(equal == len(visitors), f"the machines know {len(visitors) - equal} of {len(visitors)} visitors otherwise")
    return {
        "visitors": len(visitors),
        "equal_states": equal,
        "equal_slates": same,
        "items_in_common": round(common / len(visitors), 3),
    }


async def _chosen(client: AsyncClient, visitor: str) -> list[str]:
    answer = await client.recommend("home_for_you", visitor)
    return [item.item_id for item in answer.slates[0].items]


async def _change(here: AsyncClient, there: AsyncClient, items: list[str]) -> dict[str, list[str]]:
    """Return what the other machine shows a new visitor, before and after a basket at this one."""
    visitor = "somebody-new"
    before = await _chosen(there, visitor)
    basket = event(EVENT_TYPE_PURCHASE, visitor, items[:_SHOWN])
    basket.ClearField("event_time")
    await here.record([basket])
    deadline = time.perf_counter() + _PATIENCE_S
    while (after := await _chosen(there, visitor)) == before:
        require(time.perf_counter() < deadline, "an event at one machine does not change the answer of the other")
        await asyncio.sleep(_PAUSE_S)
    require(not await last_viewed(there, visitor), "a basket is no view")
    return {"bought": items[:_SHOWN], "before": before[:_SHOWN], "after": after[:_SHOWN]}


def _print(figures: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(figures["machine"])
    imported = figures["import"]
    table = Table("all events are", "seconds", title=f"{imported['events']:,} events, {imported['lines']:,} lines")
    for name, seconds in imported["seconds"].items():
        table.add_row(name, f"{seconds:,.1f}")
    console.print(table)
    changed = figures["changed_answer"]
    table = Table("the other machine shows", "items", title=f"after a basket of {', '.join(changed['bought'])}")
    for name in ("before", "after"):
        table.add_row(name, ", ".join(changed[name]))
    console.print(table)
    table = Table(*figures["lag_ms"], title=f"milliseconds from one machine to the other, {figures['views']:,} views")
    table.add_row(*(f"{value:,.1f}" for value in figures["lag_ms"].values()))
    console.print(table)
    alike = figures["both_machines"]
    console.print(
        f"of {alike['visitors']} visitors both machines know the same of {alike['equal_states']} and choose the same "
        f"slate for {alike['equal_slates']}; {alike['items_in_common']:.1%} of the items are in common",
        soft_wrap=True,
    )


def _say(text: str) -> None:
    _errors.print(text)


if __name__ == "__main__":
    typer.run(main)
