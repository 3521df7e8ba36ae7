"""`python -m trainers sequence`: train one sequence model on an export, in one process or by `torchrun` in several."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trainers.console import JsonOption, answer, errors_told, progress_told
from trainers.dataset import read_export
from trainers.gru4rec import Gru4Rec
from trainers.sasrec import SasRec


class Kind(StrEnum):
    """Sequence models by name."""

    TRANSFORMER = "transformer"
    RECURRENT = "recurrent"


_MODELS: dict[Kind, type[SasRec | Gru4Rec]] = {Kind.TRANSFORMER: SasRec, Kind.RECURRENT: Gru4Rec}


def sequence(
    export: Annotated[Path, typer.Option("--export", help="Folder of the export to read.")],
    out: Annotated[Path, typer.Option(help="Folder to write the files into.")],
    model: Annotated[Kind, typer.Option(help="What encodes a history.")] = Kind.TRANSFORMER,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    json: JsonOption = False,
) -> None:
    """Train an encoder of histories; by `torchrun --nproc-per-node N -m trainers sequence ...` in N processes."""
    with errors_told(json=json), progress_told() as tell:
        found = read_export(export)
        known = found.dataset if found.held_out_ms is None else found.dataset.before(found.held_out_ms)
        fitted = _MODELS[model](seed=seed).fit(known, lambda share: tell(f"learn the {model}", share))
        if os.environ.get("RANK", "0") != "0":
            return
        files = list(fitted.export(out).files)
    answer({"folder": str(out), "files": files}, f"{out}: {', '.join(files)}", json=json)
