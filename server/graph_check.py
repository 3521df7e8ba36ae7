"""What every ONNX graph of a bundle is checked for: its operators, where its weights are, how long it takes."""

import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

import onnx
import onnxruntime as ort

from server.ranker import open_session

MAX_GRAPH_BYTES: Final = 256 * 2**20

_REPEATS: Final = 5


class CheckError(Exception):
    """Fault of a bundle; the text says what to mend."""


def check_graph(path: Path, operators: Mapping[str, Collection[str]]) -> None:
    """Refuse what a model does not need: other operators, functions, subgraphs, data in other files.

    Parameters
    ----------
    path : an ONNX file
    operators : names that are allowed, by domain; empty is that of ONNX itself

    Raises
    ------
    CheckError
    """
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise CheckError(f"{path.name} is larger than {MAX_GRAPH_BYTES} bytes; train a smaller model")
    try:
        model = onnx.load_model(path, load_external_data=False)
    except Exception as error:
        raise CheckError(f"{path.name} is no ONNX model; export it again") from error
    if model.functions or model.graph.sparse_initializer:
        raise CheckError(f"{path.name} has functions or sparse tensors; export it without")
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type not in operators.get(domain, ()):
            raise CheckError(f"{path.name} uses operator {domain or 'ai.onnx'}.{node.op_type}; export it without")
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors):
        raise CheckError(f"{path.name} keeps weights in another file; export it with external_data=False")


def session_of(path: Path) -> ort.InferenceSession:
    """Return a session as the server opens it; CheckError if the graph does not load."""
    try:
        return open_session(path)
    except Exception as error:
        raise CheckError(f"{path.name} does not load: {first_line(error)}") from error


def least_seconds(work: Callable[[], object]) -> float:
    """Return the shortest time of a few runs of `work`, seconds."""
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def first_line(error: Exception) -> str:
    """Return the beginning of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
