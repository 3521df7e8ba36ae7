"""G4: 1,000 rows by 300 trees of depth 6, against CatBoost itself and onnxruntime, all on one thread."""

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from catboost import CatBoostRegressor
from measure import Row, fastest, interleave, require
from numpy.typing import NDArray

import core_rs

_ROWS: Final = 1_000
_TREES: Final = 300
_DEPTH: Final = 6
_RUNS: Final = 15
_TOLERANCE: Final = 1e-5

Score = Callable[[], NDArray[np.floating]]


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return a row for each peer after the scores were compared."""
    features, model = _model()
    with tempfile.TemporaryDirectory() as folder:
        path = _bundle(Path(folder) / "bench", model)
        bundle = core_rs.Engine().load_bundle(path)
        session = _session(path / "ranker.onnx")
    rows = features[:_ROWS]

    def ours() -> NDArray[np.floating]:
        scores = bundle.score(rows)
        require(scores is not None, "the graph was not compiled")
        return np.asarray(scores)

    peers: dict[str, Score] = {
        "CatBoost predict": lambda: model.predict(rows, thread_count=1),
        "onnxruntime": lambda: session.run(None, {"features": rows})[0],
    }
    measured = []
    for peer, score in peers.items():
        scale = max(1.0, float(np.abs(score()).max()))
        worst = float(np.abs(ours().ravel() - score().ravel()).max()) / scale
        require(worst <= _TOLERANCE, f"scores differ from those of {peer} by {worst:.3g}")
        note(f"G4 / {peer}")
        compared = interleave(_fastest(ours), _fastest(score), _RUNS, lambda _: None)
        detail = {"rows": _ROWS, "trees": _TREES, "depth": _DEPTH, "features": rows.shape[1], "difference": worst}
        measured.append(compared.row(f"G4 / {peer.split()[0]}", "us", peer, higher_is_better=False, **detail))
    return measured


def _model() -> tuple[NDArray[np.float32], CatBoostRegressor]:
    random = np.random.default_rng(0)
    features = random.normal(size=(10_000, len(core_rs.feature_names()))).astype(np.float32)
    target = (
        features[:, 0] + features[:, 1] * features[:, 2] + np.sin(features[:, 3]) + random.normal(size=len(features))
    )
    model = CatBoostRegressor(
        iterations=_TREES, depth=_DEPTH, random_seed=0, thread_count=2, verbose=False, allow_writing_files=False
    )
    return features, model.fit(features, target)


def _bundle(folder: Path, model: CatBoostRegressor) -> Path:
    """Return a bundle with CatBoost's own export, its output renamed."""
    folder.mkdir()
    path = folder / "ranker.onnx"
    model.save_model(str(path), format="onnx")
    graph = onnx.load(path)
    graph.graph.node[0].output[0] = graph.graph.output[0].name = "actions"
    shape = graph.graph.output[0].type.tensor_type.shape.dim
    shape.add().dim_value = 1
    onnx.save(graph, path)
    manifest = {
        "version": folder.name,
        "schema_hash": core_rs.schema_hash(),
        "actions": ["purchase"],
        "create_ms": 1,
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _fastest(score: Score) -> Callable[[], float]:
    return fastest(lambda _: score(), itertools.repeat(None))
