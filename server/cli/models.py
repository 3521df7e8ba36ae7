"""Commands about models: `train`, `count`, `publish`, `activate`, `rollback`."""

import json as jsonlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.table import Table

from server.cli.deployment import ConfigOption, DataDirOption, existing_log, run_trainers, settings_of
from server.cli.making import PartsOption, RankerOption, VectorsOption, asked_for, check_installed
from server.cli.output import JsonFlag, handled, note, result
from server.cli.remote import DEFAULT_ADDRESS, LOAD_S, AddressOption, connected
from server.settings import Settings
from server.tables import describe_tables, request_export
from shopkeeper.v1 import model_service_pb2 as pb

PUBLISH_S = 200.0
"""Deadline of a publish, which replays a bundle in a child process, seconds."""
_EXPORT_S = 600.0

VersionArgument = Annotated[str, typer.Argument(help="Name of the bundle's folder.")]
ExportOption = Annotated[Path | None, typer.Option("--export", help="Export to read; without it a fresh one is made.")]
SeedOption = Annotated[
    list[int] | None,
    typer.Option(min=0, help="Seed of everything random, 0 where none is named; several measure a ranker each."),
]


@handled
def train(
    export: ExportOption = None,
    seed: SeedOption = None,
    ranker: RankerOption = None,
    parts: PartsOption = "",
    item_vectors: VectorsOption = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Train a bundle from the log and offer it for publishing."""
    if item_vectors and "content" not in parts.split(","):
        raise typer.BadParameter("--item-vectors are read by the part content; add `--with content`")
    check_installed(parts, item_vectors)
    settings = settings_of(config, data_dir)
    incoming = settings.bundle_dir / "incoming"
    folder = export or fresh_export(settings)
    options = {"--export": str(folder), "--out": str(incoming), **asked_for(ranker, parts, item_vectors)}
    named = [text for option in options.items() for text in option]
    trained = run_trainers(["train", *named, *seeds_of(seed), "--json"])
    result(trained, quality_table(trained.get("rows", ()), title=f"bundle {trained['version']}"), as_json=json)
    note(f"next: shopkeeper publish {trained['version']}")


@handled
def count(
    shards: Annotated[int, typer.Option(min=1, help="Shards of visitors, each read and counted by its own task.")] = 2,
    processes: Annotated[int, typer.Option(min=1, help="Processes of this machine that take the tasks.")] = 2,
    ray: Annotated[str, typer.Option(help="host:port of a Ray cluster that takes them instead.")] = "",
    ranker: Annotated[str, typer.Option(help="Bundle of this machine whose ranker ranks in the new one.")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    json: JsonFlag = False,
) -> None:
    """Count a bundle's lists over shards of visitors, straight from ClickHouse, and offer it for publishing."""
    settings = settings_of(config, data_dir)
    with TemporaryDirectory() as folder, existing_log(settings):
        tables = Path(folder) / "tables.json"
        tables.write_text(jsonlib.dumps(describe_tables(settings, _EXPORT_S)), encoding="utf-8")
        options = ["--tables", str(tables), "--out", str(settings.bundle_dir / "incoming"), "--shards", str(shards)]
        where = ["--ray", ray] if ray else ["--processes", str(processes)]
        kept = ["--ranker", str(settings.bundle_dir / ranker)] if ranker else []
        counted = run_trainers(["count", *options, *where, *kept, "--json"])
    result(counted, f"bundle {counted['version']}: {', '.join(counted['files'])}", as_json=json)
    note(f"next: shopkeeper publish {counted['version']}")


@handled
def publish(version: VersionArgument, address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """Have a bundle of `bundles/incoming` checked and kept; exit code 5 when a check fails."""
    with connected(address) as remote:
        model = remote.models.PublishModel(pb.PublishModelRequest(version=version), timeout=PUBLISH_S).model
    _show_model(model, as_json=json)
    note(f"next: shopkeeper activate {version}")


@handled
def activate(version: VersionArgument, address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """Make a published bundle serve."""
    with connected(address) as remote:
        model = remote.models.ActivateModel(pb.ActivateModelRequest(version=version), timeout=LOAD_S).model
    _show_model(model, as_json=json)


@handled
def rollback(address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """Make the bundle before serve again; another one serves by `activate`."""
    with connected(address) as remote:
        model = remote.models.RollbackModel(pb.RollbackModelRequest(), timeout=LOAD_S).model
    _show_model(model, as_json=json)


def quality_table(rows: Sequence[Mapping[str, Any]], title: str = "quality") -> Table:
    """Return the table of measured rows; text columns left, numbers right with four digits."""
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        numbers = any(isinstance(row.get(name), (int, float)) for row in rows)
        table.add_column(name.replace("_", " "), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    return table


def fresh_export(settings: Settings) -> Path:
    """Return the folder of an export of the log as it is now."""
    with existing_log(settings):
        note("writing an export of the log")
        return request_export(settings, _EXPORT_S)


def seeds_of(seeds: Sequence[int] | None) -> list[str]:
    """Return the options of `python -m trainers` that name these seeds."""
    return [text for seed in seeds or () for text in ("--seed", str(seed))]


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _show_model(model: pb.Model, *, as_json: bool) -> None:
    state = pb.Model.State.Name(model.state).removeprefix("STATE_").lower()
    metrics = {metric.name: metric.value for metric in model.metrics}
    until = datetime.fromtimestamp(model.train_end_time.seconds, UTC).isoformat()
    data = {
        "version": model.version,
        "state": state,
        "train_end_time": until,
        "event_count": model.event_count,
        "actions": list(model.actions),
        "metrics": metrics,
    }
    table = Table(title=f"bundle {model.version}: {state}", title_justify="left")
    table.add_column("fact")
    table.add_column("value", justify="right")
    table.add_row("events until", until)
    table.add_row("events", f"{model.event_count:,}")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    result(data, table, as_json=as_json)
