"""`shopkeeper retrain`: a new bundle from the log takes over where it is not worse than the one that serves."""

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from server.bundles import read_manifest
from server.cli.deployment import ConfigOption, DataDirOption, run_trainers, settings_of
from server.cli.making import PART_FILES, PartsOption, RankerOption, VectorsOption, asked_for, check_installed
from server.cli.models import PUBLISH_S, fresh_export, quality_table
from server.cli.output import EXPECTED, CliError, Exit, JsonFlag, as_cli_error, handled, note, result
from server.cli.remote import CALL_S, DEFAULT_ADDRESS, LOAD_S, AddressOption, Remote, connected
from server.settings import Settings
from shopkeeper.v1 import model_service_pb2 as pb

_HOUR_S = 3_600.0
_KEPT = 5
"""Newest published bundles that stay."""


@handled
def retrain(
    every: Annotated[
        float, typer.Option(min=0.0, help="Hours from one start to the next, until Ctrl-C; 0: once.")
    ] = 0.0,
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the serving bundle's NDCG@10 that may be lost.")
    ] = 0.02,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    ranker: RankerOption = None,
    parts: PartsOption = "",
    item_vectors: VectorsOption = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    address: AddressOption = DEFAULT_ADDRESS,
    json: JsonFlag = False,
) -> None:
    """Train from the log, compare with the bundle that serves on what it never saw, publish and activate if not worse.

    Without --with, --ranker and --item-vectors the new bundle is made as the serving one was. Where it takes over, the
    one before, one on trial and the five newest stay published, and older ones are removed. Ends with status 5 where
    nothing can be said yet, before it trains, and where the new bundle is worse, which it leaves in `bundles/incoming`;
    with --every that is told, the bundle is removed, and the next time comes.
    """
    settings = settings_of(config, data_dir)
    check_installed(parts, item_vectors)
    options = {"--seed": str(seed), **asked_for(ranker, parts, item_vectors)}
    while True:
        started = time.monotonic()
        try:
            _once(settings, address, options, tolerance, keep=not every, as_json=json)
        except EXPECTED as fault:
            if not every:
                raise
            error = as_cli_error(fault)
            note(f"{error.what} {error.why}; next time in {every:g} h")
        if not every:
            return
        time.sleep(max(0.0, every * _HOUR_S - (time.monotonic() - started)))


def _once(
    settings: Settings, address: str, options: dict[str, str], tolerance: float, *, keep: bool, as_json: bool
) -> None:
    with connected(address) as remote:
        active = _active(remote)
    incoming = settings.bundle_dir / "incoming"
    if active:
        options = made_as(settings.bundle_dir / active, options)
        options |= {"--against": str(settings.bundle_dir / active), "--tolerance": str(tolerance)}
    check_installed(options.get("--with", ""), options.get("--item-vectors", ""))  # as the serving one was made
    options = {**options, "--export": str(fresh_export(settings)), "--out": str(incoming)}
    trained = run_trainers(["train", *(text for option in options.items() for text in option), "--json"])
    version, gate = trained.get("version", ""), trained.get("gate")
    if gate is not None and not gate["passed"]:
        if version and not keep:
            shutil.rmtree(incoming / version)
        raise _not_taken(incoming, version, active, gate["why"])
    with connected(address) as remote:
        remote.models.PublishModel(pb.PublishModelRequest(version=version), timeout=PUBLISH_S)
        if _active(remote) != active:
            raise CliError(
                f"Bundle {version} was compared with {active or 'nothing'}, which does not serve any more.",
                why="another bundle was activated meanwhile",
                then="`shopkeeper retrain` again",
                code=Exit.GATE,
            )
        remote.models.ActivateModel(pb.ActivateModelRequest(version=version), timeout=LOAD_S)
        _remove_old(remote, settings.bundle_dir, before=active)
    _show({**trained, "replaced": active}, as_json=as_json)


def _not_taken(incoming: Path, version: str, active: str, why: str) -> CliError:
    """Return the error of a bundle that does not take over; without a version none was made."""
    if not version:
        what = f"No new bundle takes the place of {active}; none was trained."
        then = "`shopkeeper retrain` later, or `shopkeeper train` and try that bundle as a shadow"
    else:
        what = f"Bundle {version} does not take the place of {active}."
        then = f"`shopkeeper publish {version}` and try it as a shadow, or remove {incoming / version}"
    return CliError(what, why=why, then=then, code=Exit.GATE)


def made_as(folder: Path, options: dict[str, str]) -> dict[str, str]:
    """Return the options of the trainers with what they do not say of parts, ranker and vectors as a bundle has it."""
    manifest = read_manifest(folder)
    parts = ",".join(part for part, file in PART_FILES.items() if file in manifest.files)
    made = {"--with": parts, "--ranker": manifest.ranker, "--item-vectors": manifest.item_vectors}
    found = {name: value for name, value in made.items() if value} | options
    if "content" not in found.get("--with", "") and "--item-vectors" not in options:
        found.pop("--item-vectors", None)
    return found


def _active(remote: Remote) -> str:
    """Return the version that serves; empty if none does, CliError while a trial is in force."""
    trial = remote.models.GetTrial(pb.GetTrialRequest(), timeout=CALL_S).trial
    if trial.version:
        raise CliError(
            f"A trial of {trial.version} is in force.",
            why="a new bundle would end it",
            then="`shopkeeper trial stop`, or `shopkeeper activate` what it tries",
            code=Exit.GATE,
        )
    request = pb.ListModelsRequest(page_size=1_000)
    models = remote.models.ListModels(request, timeout=CALL_S).models
    return next((model.version for model in models if model.state == pb.Model.STATE_ACTIVE), "")


def _remove_old(remote: Remote, folder: Path, *, before: str) -> None:
    """Remove published bundles that nobody needs soon; without this a schedule would fill the disk."""
    models = remote.models.ListModels(pb.ListModelsRequest(page_size=1_000), timeout=CALL_S).models
    for model in models[_KEPT:]:
        if model.state == pb.Model.STATE_PUBLISHED and model.version != before:
            shutil.rmtree(folder / model.version, ignore_errors=True)


def _show(trained: dict[str, Any], *, as_json: bool) -> None:
    gate = trained.get("gate")
    said = f"{gate['why']} ({gate['visitors']:,} visitors)" if gate else "no bundle served before"
    head = Text(f"{trained['version']} serves now: {said}", style="bold")
    shown = Group(quality_table(trained.get("rows", ()), f"bundle {trained['version']}"), head)
    result(trained, shown, as_json=as_json)
