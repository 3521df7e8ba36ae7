"""Bundle folders: what trainers learnt, in the form that the server checks and serves."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save_file

import core_rs
from trainers.base import Trainer
from trainers.dataset import Dataset
from trainers.evaluate import Metric
from trainers.ranker import OPSET, Ranker

CONSENT_BASIS = "visitors whose consent to training is granted, by answer or by the shop's setting, at export"


@dataclass(frozen=True)
class Card:
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
    """

    version: str
    create_ms: int
    actions: tuple[str, ...] = ()
    seed: int = 0
    time_zone: str = "UTC"
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True)
class Tried:
    """A ranker with feature rows that show what it answers."""

    ranker: Ranker
    features: NDArray[np.float32]


def write_bundle(folder: Path, card: Card, dataset: Dataset, models: Sequence[Trainer], tried: Tried | None) -> Path:
    """Write a bundle of fitted `models` and a ranker, or none, below `folder` and return its path.

    It is written beside and renamed, so that nobody sees half a bundle; one of the same version is replaced.
    """
    target = folder / card.version
    beside = folder / f".{card.version}.part"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    save_file(packed(dataset.items), beside / "items.safetensors")
    save_file(packed(dataset.visitors), beside / "visitors.safetensors")
    for model in models:
        model.export(beside)
    if tried is not None:
        onnx.save(tried.ranker.graph(), beside / "ranker.onnx")
        golden = {"features": tried.features, "actions": tried.ranker.predict(tried.features)}
        save_file(golden, beside / "golden.safetensors")
    text = json.dumps(_manifest(card, dataset, beside), indent=2)
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
    path = folder / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; name the folder of a bundle")
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["train_end_ms"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no manifest of a bundle; name the folder of a bundle") from error


def packed(ids: Sequence[str]) -> dict[str, NDArray[np.uint8] | NDArray[np.uint32]]:
    """Return texts as one array of bytes and the offset of each."""
    encoded = [text.encode() for text in ids]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.uint32)
    return {"bytes": np.frombuffer(b"".join(encoded), np.uint8), "offsets": offsets}


def _manifest(card: Card, dataset: Dataset, folder: Path) -> dict[str, object]:
    return {
        "version": card.version,
        "schema_hash": core_rs.schema_hash(),
        "features": core_rs.feature_names(),
        "actions": list(card.actions),
        "opset": OPSET,
        "create_ms": card.create_ms,
        "train_start_ms": int(dataset.time_ms.min(initial=card.create_ms)),
        "train_end_ms": int(dataset.time_ms.max(initial=0)) + 1,
        "event_count": len(np.unique(dataset.basket)),
        "visitor_count": len(np.unique(dataset.visitor)),
        "item_count": len(np.unique(dataset.item)),
        "seed": card.seed,
        "time_zone": card.time_zone,
        "consent_basis": CONSENT_BASIS,
        "files": {path.name: _sha256(path) for path in sorted(folder.iterdir())},
        "metrics": {name: metric._asdict() for name, metric in card.metrics.items()},
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
