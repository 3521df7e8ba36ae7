"""Check of an offered bundle, run as a child process: `python -m server.bundle_check FOLDER`.

It prints the first fault and ends with status 1; a file that harms the process harms this one only.
"""

import resource
import sys
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from safetensors.numpy import load_file

import core_rs
from server.bundles import Manifest, check_files, read_manifest
from server.graph_check import CheckError, check_graph, first_line, least_seconds, session_of
from server.models import ENCODER_FILE
from server.ranker import RANKER_FILE, Ranker
from server.sequence_check import check_sequence

GOLDEN_FILE: Final = "golden.safetensors"
LATENCY_BUDGET_S: Final = 0.05
TOLERANCE: Final = 1e-5

_MEMORY_BYTES: Final = 16 * 2**30
_CPU_S: Final = 120
# fmt: off
_OPERATORS: Final = {
    "": {
        "Abs", "Add", "Cast", "Clip", "Concat", "Constant", "Div", "Erf", "Exp", "Flatten", "Gather", "Gemm",
        "Identity", "LeakyRelu", "Log", "MatMul", "Max", "Min", "Mul", "Neg", "Pow", "ReduceMean", "ReduceSum",
        "Relu", "Reshape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Transpose",
        "Unsqueeze", "Where",
    },
    "ai.onnx.ml": {
        "Imputer", "LinearRegressor", "Normalizer", "Scaler", "TreeEnsemble", "TreeEnsembleClassifier",
        "TreeEnsembleRegressor",
    },
}
# fmt: on


def check(folder: Path) -> None:
    """Raise CheckError, or EngineError of `core_rs`, when the bundle in `folder` must not serve."""
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest)
    except (OSError, ValueError) as error:
        raise CheckError(str(error)) from error
    if manifest.features != core_rs.feature_names():
        raise CheckError("the manifest's `features` are not those of this engine; train it again")
    bundle = core_rs.Engine(time_zone=manifest.time_zone).load_bundle(str(folder))
    if RANKER_FILE in manifest.files:
        check_graph(folder / RANKER_FILE, _OPERATORS)
        _check_answers(folder, manifest, bundle)
    if ENCODER_FILE in manifest.files:
        check_sequence(folder)


def _check_answers(folder: Path, manifest: Manifest, bundle: core_rs.Bundle) -> None:
    session = session_of(folder / RANKER_FILE)
    width, height = len(manifest.features), len(manifest.actions)
    _check_shape("input", session.get_inputs(), "features", width)
    _check_shape("output", session.get_outputs(), "actions", height)
    _check_golden(session, folder / GOLDEN_FILE, width, height)
    _check_finite(session, width)
    _check_compiled(session, bundle, load_file(folder / GOLDEN_FILE)["features"])
    _check_latency(Ranker(session, bundle), width)


def _check_shape(side: str, tensors: list[ort.NodeArg], name: str, width: int) -> None:
    found = [(tensor.name, tensor.type, tensor.shape) for tensor in tensors]
    matches = len(found) == 1 and found[0][:2] == (name, "tensor(float)") and len(found[0][2]) == 2  # noqa: PLR2004
    if not matches or isinstance(found[0][2][0], int) or found[0][2][1] not in (width, None):
        raise CheckError(f"{RANKER_FILE} has {side} {found}; it must be `{name}`, float, of shape (n, {width})")


def _check_golden(session: ort.InferenceSession, path: Path, width: int, height: int) -> None:
    try:
        golden = load_file(path)
        features, expected = golden["features"], golden["actions"]
    except Exception as error:
        raise CheckError(f"{path.name} cannot be used: {first_line(error)}; export golden vectors") from error
    rows = len(features)
    if not rows or features.shape != (rows, width) or expected.shape != (rows, height):
        raise CheckError(
            f"{path.name} has shapes {features.shape}, {expected.shape}; they must be (g, {width}), (g, {height})"
        )
    difference = np.abs(_run(session, features) - expected).max()
    if not difference <= TOLERANCE:
        raise CheckError(f"{RANKER_FILE} differs from its golden vectors by {difference:.3g}; export it again")


def _check_finite(session: ort.InferenceSession, width: int) -> None:
    random = np.random.default_rng(0)
    usual = random.normal(size=(256, width)).astype(np.float32)
    extreme = np.array([0.0, -1.0, 1.0, -1e6, 1e6], np.float32)[:, None].repeat(width, axis=1)
    mixed = random.choice(np.array([-1e6, 0.0, 1e6], np.float32), size=(64, width))
    if not np.isfinite(_run(session, np.concatenate([usual, extreme, mixed]))).all():
        raise CheckError(f"{RANKER_FILE} answers NaN or infinity for finite features; train it again")


def _check_compiled(session: ort.InferenceSession, bundle: core_rs.Bundle, golden: NDArray[np.float32]) -> None:
    """Compare what the engine makes of the ranker with onnxruntime, on the golden and on random features."""
    random = np.random.default_rng(2).normal(size=(256, golden.shape[1])).astype(np.float32)
    features = np.concatenate([golden, random])
    scores = bundle.score(features)
    if scores is None:
        return
    difference = np.abs(scores - _run(session, features)).max()
    if not difference <= TOLERANCE:
        raise CheckError(
            f"{RANKER_FILE} differs from what the engine makes of it by {difference:.3g}; report it as a fault"
        )


def _check_latency(ranker: Ranker, width: int) -> None:
    """Time the ranker as it serves: by the engine where that can evaluate it, else by onnxruntime."""
    features = np.random.default_rng(1).normal(size=(1_000, width)).astype(np.float32)
    seconds = least_seconds(lambda: ranker.ask(features))
    if seconds > LATENCY_BUDGET_S:
        text = f"{seconds * 1e3:.0f} ms for 1,000 rows; it may take {LATENCY_BUDGET_S * 1e3:.0f}"
        raise CheckError(f"{RANKER_FILE} takes {text}; train a smaller model")


def _run(session: ort.InferenceSession, features: NDArray[np.float32]) -> NDArray[np.float32]:
    try:
        (actions,) = session.run(["actions"], {"features": features})
    except Exception as error:
        raise CheckError(f"{RANKER_FILE} fails: {first_line(error)}") from error
    return np.asarray(actions, np.float32)


def main() -> None:
    """Check the bundle named on the command line within fixed limits of memory and time."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        check(Path(sys.argv[1]))
    except (CheckError, core_rs.EngineError) as error:
        sys.exit(_say(str(error)))


def _say(text: str) -> int:
    sys.stdout.write(text + "\n")
    return 1


if __name__ == "__main__":
    main()
