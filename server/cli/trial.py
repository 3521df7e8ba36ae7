"""Commands about a bundle on trial: `trial start`, `trial show`, `trial stop`."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.table import Table

from server.cli.models import VersionArgument
from server.cli.output import EXIT_CODES, JsonFlag, handled, note, result
from server.cli.remote import CALL_S, DEFAULT_ADDRESS, LOAD_S, AddressOption, connected
from shopkeeper.v1 import model_service_pb2 as pb


class Mode(StrEnum):
    """What is done with a bundle on trial."""

    SHADOW = "shadow"
    CANARY = "canary"


def _share(value: float) -> float:
    if not 0.0 < value <= 1.0:
        raise typer.BadParameter(f"{value:g} is not above 0 and at most 1")
    return value


trial = typer.Typer(no_args_is_help=True, help="Try a bundle beside the one that serves.", epilog=EXIT_CODES)


@trial.command(epilog=EXIT_CODES)
@handled
def start(
    version: VersionArgument,
    mode: Annotated[
        Mode, typer.Option(help="shadow: answer a share of requests again, unseen; canary: serve a share of visitors.")
    ] = Mode.SHADOW,
    share: Annotated[
        float, typer.Option(callback=_share, help="Share of requests or of visitors, above 0, at most 1.")
    ] = 0.1,
    address: AddressOption = DEFAULT_ADDRESS,
    json: JsonFlag = False,
) -> None:
    """Begin a trial; the one before ends."""
    wanted = pb.Trial(version=version, mode=pb.Trial.Mode.Value(f"MODE_{mode.name}"), share=share)
    with connected(address) as remote:
        begun = remote.models.StartTrial(pb.StartTrialRequest(trial=wanted), timeout=LOAD_S).trial
    _show(pb.GetTrialResponse(trial=begun), as_json=json)
    note("next: shopkeeper trial show, then shopkeeper activate or shopkeeper trial stop")


@trial.command(epilog=EXIT_CODES)
@handled
def show(address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """Show the trial in force and what the answering replica saw of it."""
    with connected(address) as remote:
        _show(remote.models.GetTrial(pb.GetTrialRequest(), timeout=CALL_S), as_json=json)


@trial.command(epilog=EXIT_CODES)
@handled
def stop(address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """End the trial; the bundle that serves goes on alone."""
    with connected(address) as remote:
        remote.models.StopTrial(pb.StopTrialRequest(), timeout=CALL_S)
    result({}, "no trial is in force", as_json=json)


def _show(found: pb.GetTrialResponse, *, as_json: bool) -> None:
    if not found.HasField("trial"):
        result({}, "no trial is in force", as_json=as_json)
        return
    facts: dict[str, Any] = MessageToDict(
        found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    facts["trial"]["mode"] = pb.Trial.Mode.Name(found.trial.mode).removeprefix("MODE_").lower()
    counts = {field.name for field in pb.TrialReport.DESCRIPTOR.fields if field.cpp_type == field.CPPTYPE_INT64}
    for name in counts & set(facts.get("report", ())):  # JSON of protobuf has them as text
        facts["report"][name] = int(facts["report"][name])
    table = Table("fact", title="trial", title_justify="left")
    table.add_column("value", justify="right")
    for group in facts.values():
        for name, value in group.items():
            table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
    result(facts, table, as_json=as_json)
