"""The encoder as one ONNX file, with inputs and outputs to check it by."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trainers.base import Array
from trainers.dataset import ACTIONS
from trainers.sequence.encoder import GAPS_MS, Encoder
from trainers.sequence.histories import Inputs
from trainers.sessions import OPSET

_N_GOLDEN = 32
_NAMES = ("items", "actions", "gaps")


class Served(nn.Module):
    """Encoder as it answers when an event arrives: one vector a history."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, items: Tensor, actions: Tensor, gaps: Tensor) -> Tensor:
        """Return the vector after the last event, shape (b, width)."""
        return self.encoder.last(items, actions, gaps)


def golden(encoder: Encoder, length: int, seed: int) -> Mapping[str, Array]:
    """Return made-up inputs of every kind, int64 (32, length), and the `vector` that each must give, f32 (32, width).

    Rows of all sizes are among them, one without events, with unknown items and gaps of all spans.
    """
    rng = np.random.default_rng(seed)
    shape = (_N_GOLDEN, length)
    inside = np.arange(length) < np.linspace(0, length, _N_GOLDEN).round().astype(np.int64)[:, None]
    gaps = rng.integers(0, 2 * GAPS_MS[-1], shape) >> rng.integers(0, 48, shape)
    gaps[:, 0] = 0
    inputs = Inputs(
        np.where(inside, rng.integers(1, encoder.unknown + 1, shape), 0),
        np.where(inside, rng.integers(0, max(ACTIONS.values()) + 1, shape), 0),
        np.where(inside, gaps, 0),
    )
    return {"items": inputs.items, "actions": inputs.actions, "gaps": inputs.gaps, "vector": encoder.answer(inputs)}


def write(encoder: Encoder, length: int, path: Path) -> None:
    """Write the graph: inputs `items`, `actions`, `gaps`, int64 (b, at most `length`), output `vector`, f32 (b, width).

    Rows end in zeros where the history is shorter than the longest of the call.
    """
    example = tuple(torch.ones((2, length), dtype=torch.int64) for _ in _NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no onnxscript calls itself old
        torch.onnx.export(
            Served(encoder).eval(),
            example,
            path,
            input_names=list(_NAMES),
            output_names=["vector"],
            dynamic_axes={name: {0: "b", 1: "length"} for name in _NAMES} | {"vector": {0: "b"}},
            opset_version=OPSET,
            dynamo=False,
        )
