"""A generated bundle: neighbour lists, content vectors where they are wanted, and a small network of random weights."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import core_rs

_ACTIONS: Final = ("view", "add_to_cart", "purchase")
_LAYERS: Final = (32, 32)
_MADE_MS: Final = 1_767_225_600_000


def write_bundle(
    folder: Path, item_ids: Sequence[str], *, neighbours: int = 64, dimensions: int = 0, seed: int = 1
) -> Path:
    """Write a bundle whose version is the folder's name and return the folder.

    What was also viewed is odd, what was also bought is even and no multiple of ten.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    texts = [item_id.encode() for item_id in item_ids]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.uint32)
    save_file({"bytes": np.frombuffer(b"".join(texts), np.uint8), "offsets": offsets}, folder / "items.safetensors")
    numbers = np.arange(len(item_ids), dtype=np.uint32)
    pools = {"also_viewed": numbers[1::2], "also_bought": numbers[(numbers % 2 == 0) & (numbers % 10 != 0)]}
    for name, pool in pools.items():
        save_file(_lists(len(item_ids), neighbours, pool, random), folder / f"{name}.safetensors")
    if dimensions:
        save_file({"vectors": _vectors(len(item_ids), dimensions, random)}, folder / "content_items.safetensors")
    _write_ranker(folder / "ranker.onnx", random)
    (folder / "manifest.json").write_text(json.dumps(_manifest(folder, len(item_ids), seed)))
    return folder


def _manifest(folder: Path, item_count: int, seed: int) -> dict[str, object]:
    return {
        "version": folder.name,
        "schema_hash": core_rs.schema_hash(),
        "features": core_rs.feature_names(),
        "actions": _ACTIONS,
        "opset": 17,
        "create_ms": _MADE_MS,
        "train_start_ms": _MADE_MS,
        "train_end_ms": _MADE_MS,
        "event_count": 0,
        "visitor_count": 0,
        "item_count": item_count,
        "seed": seed,
        "consent_basis": "generated",
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()},
        "metrics": {},
    }


def _lists(
    rows: int, length: int, pool: NDArray[np.uint32], random: np.random.Generator
) -> dict[str, NDArray[np.generic]]:
    """Return `length` different members of `pool` for every row, best first."""
    start = random.integers(len(pool), size=(rows, 1))
    step = random.integers(1, len(pool) // length, size=(rows, 1))
    place = (start + step * np.arange(length)) % len(pool)
    scores = np.sort(random.random((rows, length), np.float32), axis=1)[:, ::-1]
    return {
        "offsets": np.arange(0, rows * length + 1, length, dtype=np.uint32),
        "neighbours": pool[place].ravel(),
        "scores": np.ascontiguousarray(scores).ravel(),
    }


def _vectors(rows: int, dimensions: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return vectors of length 1."""
    vectors = random.standard_normal((rows, dimensions), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _write_ranker(path: Path, random: np.random.Generator) -> None:
    widths: Sequence[int] = (len(core_rs.feature_names()), *_LAYERS, len(_ACTIONS))
    nodes, weights = [], []
    flow = "features"
    for layer, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        values = random.normal(scale=wide**-0.5, size=(wide, narrow)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"weight{layer}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"bias{layer}"))
        last = layer == len(widths) - 2
        nodes.append(helper.make_node("Gemm", [flow, f"weight{layer}", f"bias{layer}"], [f"sum{layer}"]))
        flow = "actions" if last else f"hidden{layer}"
        nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"sum{layer}"], [flow]))
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", widths[0]])],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", widths[-1]])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
