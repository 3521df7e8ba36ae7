"""`shopkeeper demo`: a year of a grocer becomes a shop that answers, and is measured through its own front door."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from server.cli.deployment import run_trainers, settings_of
from server.cli.models import PUBLISH_S, quality_table
from server.cli.output import JsonFlag, handled, note, progress_console, result
from server.cli.remote import CALL_S, Remote, connected, slate_table
from server.demo import showcase
from server.demo.child import free_port, running_server
from server.demo.shop import DemoShop
from server.importing.complete_journey import SPLIT, TIME_ZONE
from shopkeeper.v1 import model_service_pb2 as pb

_SEED = 0
_REGULARS = ("--min-buyers", "10", "--min-baskets", "5", "--min-items", "3")
_SERVICES = ("--without-category", "FUEL", "--without-category", "COUPON", "--without-category", "MISCELLANEOUS")
_QUESTION = (*_REGULARS, *_SERVICES, "--without-subcategory", "COUPON/MISC ITEMS")
_BASELINES = ("--baselines", "all")
_MOMENT = {"CLOCK__START": SPLIT.astimezone(UTC).isoformat(), "TIME_ZONE": TIME_ZONE}
_PORT = 50_051


@dataclass
class _Phases:
    """Seconds of every phase, told on standard error as they pass."""

    out: Console = field(default_factory=progress_console)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        start = time.monotonic()
        with self.out.status(text) if self.out.is_terminal and name != "train" else _silent():
            yield
        self.seconds[name] = round(time.monotonic() - start, 2)
        self.out.print(f"{self.seconds[name]:7.1f} s  {text}", highlight=False)


@handled
def demo(
    serve: Annotated[bool, typer.Option("--serve", help="Leave the server running at the end, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port of the server; a free one if taken.")] = _PORT,
    data_dir: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("data/demo"),
    json: JsonFlag = False,
) -> None:
    """Import a grocer's year, train, serve, measure next-basket quality over gRPC, and show three households.

    The shop stands at midnight of 2017-12-04 in New York; the baskets after it are what the models must foresee.
    A second run does again only what changed.
    """
    # A server of ours must not outlive a terminated demo: SIGTERM unwinds as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    phases = _Phases()
    started = time.monotonic()
    shop = DemoShop(settings_of(None, data_dir, time_zone=TIME_ZONE))
    with phases("import", "import the Complete Journey up to 2017-12-04"):
        shop.import_shop()
    with phases("export", "fill the tables and export them for the trainers"):
        shop.export_shop()
    with phases("train", "train and measure models and baselines"):
        _train(shop)
    port = free_port(port)
    with ExitStack() as stack:
        with phases("server", "start the server"):
            server = running_server(shop.settings.data_dir, port, {**_MOMENT, "CLOCK__RATE": "0"})
            address = stack.enter_context(server)
        found = _measure(shop, address, phases)
    phases.seconds["total"] = round(time.monotonic() - started, 2)
    found = {"seconds": phases.seconds, "quality": shop.state.trained.get("rows", []), **found}
    result(found, _report(found, port), as_json=json)
    if serve:
        _serve_on(shop, port)


def _train(shop: DemoShop) -> None:
    if shop.needs_training(_SEED):
        incoming = shop.settings.bundle_dir / "incoming"
        incoming.mkdir(parents=True, exist_ok=True)
        options = ["--export", str(shop.export), "--out", str(incoming), "--seed", str(_SEED)]
        shop.keep_training(_SEED, run_trainers(["train", *options, *_QUESTION, *_BASELINES, "--json"]))


def _measure(shop: DemoShop, address: str, phases: _Phases) -> dict[str, Any]:
    with connected(address) as remote:
        with phases("publish", "publish and activate the bundle over gRPC"):
            _activate(remote, shop.state.trained["version"])
        with phases("served", "measure what is served, household by household, over gRPC"):
            served = run_trainers(["served", "--address", address, "--export", str(shop.export), *_QUESTION, "--json"])
        with phases("latency", "time single answers over gRPC"):
            latency = showcase.latency(remote, showcase.visitors(shop.export))
        with phases("households", "ask what three households see"):
            households = showcase.show(remote, showcase.households(shop.export))
    return {"served": served["rows"], "latency_ms": latency, "households": households}


def _activate(remote: Remote, version: str) -> None:
    remote.models.PublishModel(pb.PublishModelRequest(version=version), timeout=PUBLISH_S)
    remote.models.ActivateModel(pb.ActivateModelRequest(version=version), timeout=CALL_S)


def _report(found: dict[str, Any], port: int) -> Group:
    served = [{**row, "model": "served over gRPC"} for row in found["served"]]
    quality = sorted([*found["quality"], *served], key=lambda row: str(row["set"]))
    latency = found["latency_ms"]
    spent = Text(
        f"one answer over gRPC: p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms · "
        f"everything: {found['seconds']['total']:.0f} s\n",
        style="bold",
    )
    households = [_household(household) for household in found["households"]]
    return Group(*households, quality_table(quality, "next basket of 2017-12-04 and after"), spent, _next(port))


def _household(household: dict[str, Any]) -> Group:
    traits = ", ".join(f"{name} {value}" for name, value in household["traits"].items()) or "nothing known"
    head = Text(f"\nhousehold {household['household']}: {traits}", style="bold")
    where = Text(f"looks at {household['product']} · cart: {'; '.join(household['cart'])}")
    return Group(head, where, *(slate_table(slate["place"], slate["items"]) for slate in household["slates"]))


def _next(port: int) -> Table:
    address = "" if port == _PORT else f" --address 127.0.0.1:{port}"
    table = Table("next", "what it does", title="try", title_justify="left")
    table.add_row("shopkeeper demo --serve", "leave the shop running")
    table.add_row(f"shopkeeper recommend 104{address}", "ask it, with the reason of every item")
    table.add_row(f"shopkeeper explain 104 -p home_discover{address}", "stages, scores, features")
    table.add_row(
        "shopkeeper import complete-journey --since 2017-12-04 --until 2017-12-05 --data-dir data/demo",
        "let the next day come in",
    )
    table.add_row("shopkeeper import events YOUR.csv --dry-run", "check your own data")
    return table


def _serve_on(shop: DemoShop, port: int) -> None:
    with running_server(shop.settings.data_dir, port, _MOMENT) as address:
        note(f"the shop answers at {address}; its day is 2017-12-04; Ctrl-C stops")
        while True:
            time.sleep(1.0)


@contextmanager
def _silent() -> Iterator[None]:
    yield
