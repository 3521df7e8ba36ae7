"""What the encoder of histories in a bundle is checked for."""

from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file

import core_rs
from server.graph_check import CheckError, check_graph, first_line, least_seconds, session_of
from server.models import ENCODER_FILE
from server.workers.encoder import BATCH

ITEMS_FILE: Final = "sequence_items.safetensors"
GOLDEN_FILE: Final = "sequence_golden.safetensors"
LATENCY_BUDGET_S: Final = 0.1
TOLERANCE: Final = 1e-5

_INPUTS: Final = ("items", "actions", "gaps")
_ACTIONS_END: Final = 64
# fmt: off
_OPERATORS: Final = {
    "": {
        "Add", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "GRU", "Gather",
        "GatherElements", "Greater", "GreaterOrEqual", "LayerNormalization", "MatMul", "Mod", "Mul", "Not", "ReduceL2",
        "ReduceSum", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Transpose", "Trilu",
        "Unsqueeze", "Where",
    },
}
# fmt: on

Inputs = dict[str, NDArray[np.int64]]


def check_sequence(folder: Path) -> None:
    """Raise CheckError when the encoder of the bundle in `folder`, which has all files of one, must not serve."""
    check_graph(folder / ENCODER_FILE, _OPERATORS)
    session = session_of(folder / ENCODER_FILE)
    n_items, width = load_file(folder / ITEMS_FILE)["vectors"].shape
    _check_names(session)
    inputs, expected = _golden(folder / GOLDEN_FILE, width)
    found = _run(session, inputs, width)
    difference = np.abs(found - expected).max() / max(np.abs(expected).max(), TOLERANCE)
    if not difference <= TOLERANCE:
        raise CheckError(f"{ENCODER_FILE} differs from its golden vectors by {difference:.3g}; export it again")
    length = min(inputs["items"].shape[1], core_rs.history_length())
    for drawn in (_usual(n_items, length), _extreme(n_items, length)):
        if not np.isfinite(_run(session, drawn, width)).all():
            raise CheckError(f"{ENCODER_FILE} answers NaN or infinity; train it again")
    _check_latency(session, _usual(n_items, length), width)


def _check_names(session: ort.InferenceSession) -> None:
    found = {tensor.name: (tensor.type, len(tensor.shape)) for tensor in session.get_inputs()}
    if found != dict.fromkeys(_INPUTS, ("tensor(int64)", 2)):
        raise CheckError(f"{ENCODER_FILE} has inputs {found}; they must be {', '.join(_INPUTS)}, int64 (b, length)")
    outputs = [(tensor.name, tensor.type) for tensor in session.get_outputs()]
    if outputs != [("vector", "tensor(float)")]:
        raise CheckError(f"{ENCODER_FILE} has outputs {outputs}; there must be one: `vector`, float (b, width)")


def _golden(path: Path, width: int) -> tuple[Inputs, NDArray[np.float32]]:
    try:
        golden = load_file(path)
        inputs, expected = {name: golden[name] for name in _INPUTS}, golden["vector"]
    except Exception as error:
        raise CheckError(f"{path.name} cannot be used: {first_line(error)}; export golden vectors") from error
    shapes = {name: (str(values.dtype), values.shape) for name, values in inputs.items()}
    rows, length = (*inputs["items"].shape, 0)[:2]
    fits = set(shapes.values()) == {("int64", (rows, length))} and expected.shape == (rows, width)
    if not rows or not length or not fits:
        raise CheckError(
            f"{path.name} has {shapes} and `vector` {expected.shape}; they must be int64 (g, length) and (g, {width})"
        )
    return inputs, expected


def _usual(n_items: int, length: int) -> Inputs:
    """Return a whole batch of full histories."""
    random = np.random.default_rng(0)
    shape = (BATCH, length)
    gaps = random.integers(0, 10**10, shape) >> random.integers(0, 34, shape)
    return {"items": random.integers(1, n_items + 2, shape), "actions": random.integers(0, 11, shape), "gaps": gaps}


def _extreme(n_items: int, length: int) -> Inputs:
    """Return histories of every size with items, actions and gaps up to the greatest there can be."""
    random = np.random.default_rng(1)
    shape = (BATCH, length)
    inside = np.arange(length) < np.linspace(0, length, BATCH).round()[:, None]
    most = np.iinfo(np.int64).max
    values = {
        "items": random.choice(np.array([1, n_items, n_items + 1, most]), shape),
        "actions": random.choice(np.array([0, _ACTIONS_END, 255, most]), shape),
        "gaps": random.choice(np.array([0, 1, 10**12, most]), shape),
    }
    return {name: np.where(inside, drawn, 0) for name, drawn in values.items()}


def _check_latency(session: ort.InferenceSession, inputs: Inputs, width: int) -> None:
    seconds = least_seconds(lambda: _run(session, inputs, width))
    if seconds > LATENCY_BUDGET_S:
        text = f"{seconds * 1e3:.0f} ms for {BATCH} histories; it may take {LATENCY_BUDGET_S * 1e3:.0f}"
        raise CheckError(f"{ENCODER_FILE} takes {text}; train a smaller model")


def _run(session: ort.InferenceSession, inputs: Inputs, width: int) -> NDArray[np.float32]:
    try:
        (vectors,) = session.run(["vector"], inputs)
    except Exception as error:
        raise CheckError(f"{ENCODER_FILE} fails: {first_line(error)}") from error
    found = np.asarray(vectors)
    if found.shape != (len(inputs["items"]), width) or found.dtype != np.float32:
        text = f"{found.dtype} {found.shape} for {len(inputs['items'])} histories"
        raise CheckError(f"{ENCODER_FILE} answers {text}; `vector` must be as wide as the items' vectors, {width}")
    return found
