"""`python -m trainers count`: a bundle of counted lists, from tables that one process need not hold."""

from pathlib import Path
from typing import Annotated

import typer

from trainers.base import Tell, Trainer
from trainers.bundle import CopiedRanking, ManifestFacts, version_of, write_bundle
from trainers.bundle_models import usual_models
from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.item_to_item import ItemKnn
from trainers.shards.counting import Shards
from trainers.shards.source import Source
from trainers.shards.workers import workers
from trainers.visitor_lists import VisitorLists


def count(  # noqa: PLR0913, PLR0917 - an option of a command is a parameter
    tables: Annotated[Path, typer.Option(help="File that describes the tables; `shopkeeper count` writes it.")],
    out: Annotated[Path, typer.Option(help="Folder to write the bundle into.")],
    shards: Annotated[int, typer.Option(min=1, help="Shards of visitors, each read and counted by its own task.")] = 2,
    processes: Annotated[int, typer.Option(min=1, help="Processes of this machine that take the tasks.")] = 2,
    ray: Annotated[str, typer.Option(help="host:port of a Ray cluster that takes them instead.")] = "",
    ranker: Annotated[
        Path | None, typer.Option(help="Bundle whose ranker ranks in this one; else the heuristic does.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Count item-to-item and next-basket lists over shards of visitors, and write them as a bundle."""
    with errors_told(json=json), progress_told() as tell:
        source = Source.read(tables)
        ranking = None if ranker is None else CopiedRanking(ranker)
        taken = {} if ranking is None else ranking.manifest()
        with workers(processes, ray) as group:
            found = Shards.read(source, shards, group, lambda share: tell("read the shards", share))
            models = _fitted(found, tell)
        version = version_of(found.facts().end_ms, source.create_ms, 0)
        zone = taken.get("time_zone", source.time_zone)
        actions, kind = tuple(taken.get("actions", ())), taken.get("ranker", "")
        facts = ManifestFacts(version, source.create_ms, actions, time_zone=zone, ranker=kind)
        write_bundle(out, facts, found, models, ranking)
    files = sorted(name for model in models for name in model.tensors())
    answer({"version": version, "shards": shards, "files": files}, f"bundle {version}: {', '.join(files)}", json=json)


def _fitted(shards: Shards, tell: Tell) -> list[Trainer]:
    """Return the models of a bundle that counts make and that there are lines for, fitted to all shards."""
    models: list[Trainer] = []
    for model, actions in usual_models():
        if not shards.have(actions):
            continue

        def progress(share: float, name: str = type(model).__name__) -> None:
            tell(f"count {name}", share)

        if isinstance(model, ItemKnn):
            shards.fit_neighbours(model, progress)
        elif isinstance(model, VisitorLists):
            shards.fit_lists(model, progress)
        else:
            continue
        models.append(model)
    return models
