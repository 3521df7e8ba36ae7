"""Bundle folders: what trainers learnt, in the form that the server checks and serves."""

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

import core_rs
from trainers.base import Trainer
from trainers.dataset import Facts
from trainers.evaluate import Metric
from trainers.ranker import Ranker
from trainers.sessions import OPSET

CONSENT_BASIS = "visitors whose consent to training is granted, by answer or by the shop's setting, at export"


@dataclass(frozen=True)
class ManifestFacts:
    """What the manifest says beside the files.

    Attributes
    ----------
    version : str
        Name of the folder.
    create_ms : int
    actions : tuple[str, ...]
        Columns of the ranker.
    seed : int
    time_zone : str
        Of the shop that the ranker learnt from.
    metrics : Mapping[str, Metric]
    ranker : str
        What a ranker is made of, `network` or `trees`, also where the heuristic ranks better; empty where
        none was tried.
    item_vectors : str
        What vectors of items were read from, a file or `titles`; empty for none.
    """

    version: str
    create_ms: int
    actions: tuple[str, ...] = ()
    seed: int = 0
    time_zone: str = "UTC"
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    ranker: str = ""
    item_vectors: str = ""


class IdTables(Protocol):
    """What models learnt from: the id tables that they index, and how much it was."""

    @property
    def visitors(self) -> list[str]:
        """Id of each visitor."""
        ...

    @property
    def items(self) -> list[str]:
        """Id of each item."""
        ...

    def facts(self) -> Facts:
        """Return what the rows are about."""
        ...


class Ranking(Protocol):
    """What makes the files of a ranker."""

    def write(self, folder: Path) -> None:
        """Write `ranker.onnx` and `golden.safetensors` into `folder`."""
        ...


@dataclass(frozen=True)
class FittedRanking:
    """A ranker with feature rows that show what it answers."""

    ranker: Ranker
    features: NDArray[np.float32]

    def write(self, folder: Path) -> None:
        """Write the graph and the golden rows into `folder`."""
        onnx.save(self.ranker.graph(), folder / "ranker.onnx")
        golden = {"features": self.features, "actions": self.ranker.predict(self.features)}
        save_file(golden, folder / "golden.safetensors")


@dataclass(frozen=True)
class CopiedRanking:
    """The ranker of another bundle, as it is.

    Parameters
    ----------
    bundle : Path
        Folder of that bundle.
    """

    bundle: Path

    def manifest(self) -> dict[str, Any]:
        """Return the manifest of that bundle.

        Raises
        ------
        FileNotFoundError, ValueError
            When the folder holds no bundle with a ranker that reads our features.
        """
        manifest = manifest_of(self.bundle)
        if manifest.get("schema_hash") != core_rs.schema_hash():
            raise ValueError(f"the ranker of {self.bundle} reads other features; train it again")
        if "ranker.onnx" not in manifest.get("files", {}):
            raise ValueError(f"{self.bundle} has no ranker; name a bundle that has, or none")
        return manifest

    def write(self, folder: Path) -> None:
        """Copy the files into `folder`."""
        for name in ("ranker.onnx", "golden.safetensors"):
            shutil.copyfile(self.bundle / name, folder / name)


def version_of(end_ms: int, create_ms: int, seed: int, options: Iterable[str] = ()) -> str:
    """Return the name of a bundle by the end of its events and its making, Unix milliseconds, seed and `options`.

    Options are what it was made with beyond the usual, so that two bundles of one export have two names.

    >>> version_of(1_512_345_600_000, 1_811_000_000_000, 0, ["trees", "content"])
    '20171204-6bf1aac0-0-trees-content'
    """
    end = dt.datetime.fromtimestamp(end_ms / 1000, dt.UTC)
    return "-".join((f"{end:%Y%m%d}", f"{create_ms // 1000:x}", str(seed), *options))


def write_bundle(
    folder: Path, facts: ManifestFacts, tables: IdTables, models: Sequence[Trainer], ranking: Ranking | None
) -> Path:
    """Write a bundle of fitted `models` and a ranker, or none, below `folder` and return its path.

    It is written beside and renamed, so that nobody sees half a bundle; one of the same version is replaced.
    """
    target = folder / facts.version
    beside = folder / f".{facts.version}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(packed(tables.items), beside / "items.safetensors")
    save_file(packed(tables.visitors), beside / "visitors.safetensors")
    for model in models:
        model.export(beside)
    if ranking is not None:
        ranking.write(beside)
    text = json.dumps(_manifest(facts, tables.facts(), beside), indent=2)
    (beside / "manifest.json").write_text(text + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    beside.rename(target)
    return target


def learnt_until(folder: Path) -> int:
    """Return the end of the events that a bundle learnt from, Unix milliseconds.

    Raises
    ------
    FileNotFoundError, ValueError
        When the folder holds no bundle.
    """
    try:
        return int(manifest_of(folder)["train_end_ms"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'manifest.json'} is no manifest of a bundle; name the folder of a bundle"
        ) from error


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle.

    Raises
    ------
    FileNotFoundError, ValueError
        When the folder holds no bundle.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name the folder of a bundle")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no manifest of a bundle; name the folder of a bundle")  # noqa: TRY004
    return found


def packed(ids: Sequence[str]) -> dict[str, NDArray[np.uint8] | NDArray[np.uint32]]:
    """Return texts as one array of bytes and the offset of each."""
    encoded = [text.encode() for text in ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.uint32)
    return {"bytes": np.frombuffer(b"".join(encoded), np.uint8), "offsets": offsets}


def _manifest(facts: ManifestFacts, learnt: Facts, folder: Path) -> dict[str, object]:
    return {
        "version": facts.version,
        "schema_hash": core_rs.schema_hash(),
        "features": core_rs.feature_names(),
        "actions": list(facts.actions),
        "opset": OPSET,
        "create_ms": facts.create_ms,
        "train_start_ms": min(learnt.start_ms, facts.create_ms),
        "train_end_ms": learnt.end_ms + 1,
        "event_count": learnt.event_count,
        "visitor_count": learnt.visitor_count,
        "item_count": learnt.item_count,
        "seed": facts.seed,
        "time_zone": facts.time_zone,
        "consent_basis": CONSENT_BASIS,
        "ranker": facts.ranker,
        "item_vectors": facts.item_vectors,
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        "metrics": {name: metric._asdict() for name, metric in facts.metrics.items()},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
