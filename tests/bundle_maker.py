"""Bundles written the way trainers do, for tests of what serves them."""

import hashlib
import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

import core_rs

ITEMS = ["bread", "butter", "cheese"]
WIDTH = len(core_rs.feature_names())


class BundleMaker:
    """Writes bundles into `incoming`; a ranker adds up the features, each times `weight`.

    Files that are in the folder already are part of the bundle.
    """

    def __init__(self, incoming):
        self.incoming = incoming

    def make(self, version, *, weight=0.01, graph=None, manifest=None, after=None):
        folder = self.incoming / version
        folder.mkdir(parents=True, exist_ok=True)
        names = "".join(ITEMS).encode()
        offsets = np.cumsum([0, *map(len, ITEMS)]).astype(np.uint32)
        save_file({"bytes": np.frombuffer(names, np.uint8), "offsets": offsets}, folder / "items.safetensors")
        features = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
        weights = np.full((WIDTH, 1), weight, np.float32)
        actions = (1 / (1 + np.exp(-(features @ weights)))).astype(np.float32)
        save_file({"features": features, "actions": actions}, folder / "golden.safetensors")
        onnx.save(graph or ranker(weights), folder / "ranker.onnx")
        self.sign(folder, manifest or {})
        if after:
            after(folder)
        return version

    def sign(self, folder, changes):
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        manifest = {
            "version": folder.name,
            "schema_hash": core_rs.schema_hash(),
            "features": core_rs.feature_names(),
            "actions": ["purchase"],
            "opset": 17,
            "create_ms": 1_700_000_000_000,
            "train_start_ms": 1_600_000_000_000,
            "train_end_ms": 1_690_000_000_000,
            "event_count": 10,
            "visitor_count": 2,
            "item_count": 3,
            "seed": 1,
            "consent_basis": "consent",
            "files": files,
            "metrics": {"all/recall_at_10": {"value": 0.5, "low": 0.4, "high": 0.6}},
        }
        (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def model_of(nodes, initializers=(), *, width=WIDTH, output="actions", opset=17):
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", 1])]
    graph = helper.make_graph(nodes, "ranker", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ranker(weights, **options):
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], [options.get("output", "actions")]),
    ]
    return model_of(nodes, [numpy_helper.from_array(weights, "weights")], width=len(weights), **options)
