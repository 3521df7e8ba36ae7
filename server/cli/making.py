"""Options of what a bundle is made with, which `train` and `retrain` look at before they begin."""

import importlib.util
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from server.cli.output import CliError

PART_FILES: Final = {"content": "content_items.safetensors", "sequence": "sequence.onnx"}
"""Parts that a bundle has on request, each with a file that shows that it is there."""
TITLES: Final = "titles"
"""What names the vectors of titles where else stands a file."""


class RankerKind(StrEnum):
    """What a ranker is made of."""

    NETWORK = "network"
    TREES = "trees"


def _known_parts(text: str) -> str:
    names = ",".join(name.strip() for name in text.split(",") if name.strip())
    if unknown := sorted(set(filter(None, names.split(","))) - set(PART_FILES)):
        raise typer.BadParameter(
            f"there is no part {', '.join(unknown)} of a bundle; take {' or '.join(sorted(PART_FILES))}"
        )
    return names


def _readable_vectors(source: str) -> str:
    if source and source != TITLES and not Path(source).is_file():
        raise typer.BadParameter(
            f"there is no file {source}; name a Parquet file of item_id and vector, or write `{TITLES}`"
        )
    return source


RankerOption = Annotated[
    RankerKind | None, typer.Option(help="What the ranker is made of; without it a network, learnt sooner.")
]
PartsOption = Annotated[
    str, typer.Option("--with", callback=_known_parts, help="Parts to add, comma-separated: content, sequence.")
]
VectorsOption = Annotated[
    str,
    typer.Option(
        "--item-vectors",
        callback=_readable_vectors,
        help="What the part content reads too: a Parquet file of item_id and vector, or `titles`.",
    ),
]


def check_installed(parts: str, item_vectors: str) -> None:
    """Raise CliError where an extra is missing that parts or vectors need."""
    needed = {"torch": ("torch", "the part sequence", "sequence" in parts.split(","))}
    needed["wordllama"] = ("text", f"`--item-vectors {TITLES}`", item_vectors == TITLES)
    for package, (extra, what, is_asked_for) in needed.items():
        if is_asked_for and importlib.util.find_spec(package) is None:
            raise CliError(
                "A bundle cannot be made so here.",
                why=f"{what} needs the extra `{extra}`, which is not installed",
                then=f"`pip install 'shopkeeper[{extra}]'`, or leave it out",
            )


def asked_for(ranker: RankerKind | None, parts: str, item_vectors: str) -> dict[str, str]:
    """Return the options of `python -m trainers train` that were given."""
    given = {"--ranker": ranker.value if ranker else "", "--with": parts, "--item-vectors": item_vectors}
    return {name: value for name, value in given.items() if value}
