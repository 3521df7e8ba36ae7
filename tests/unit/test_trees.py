"""Rankers of trees: the engine's answers against those of onnxruntime, for the graphs that exporters make."""

import hashlib
import json
import warnings

import lightgbm
import numpy as np
import onnx
import pytest
from onnx import TensorProto, compose, helper, numpy_helper
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from safetensors.numpy import save_file

import core_rs
from server.bundle_check import check
from server.ranker import Ranker, open_session

WIDTH = len(core_rs.feature_names())
ACTIONS = ["view", "purchase"]


def features(rows, seed, *, missing):
    random = np.random.default_rng(seed)
    table = random.normal(size=(rows, WIDTH)).astype(np.float32)
    table[random.random(table.shape) < missing] = np.nan
    return table


def boosted(seed, **options):
    table = features(2_000, seed, missing=0.1)
    label = np.nan_to_num(table[:, seed] + table[:, 2] * table[:, 3]) > 0
    model = lightgbm.LGBMClassifier(n_estimators=40, verbose=-1, n_jobs=1, random_state=seed, **options)
    return model.fit(table, label.astype(int))


def graph_of(models):
    """Put the probability of each model into one output of shape (n, n_actions)."""
    nodes, constants, columns = [], [numpy_helper.from_array(np.array([1], np.int64), "one_column")], []
    for number, model in enumerate(models):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = [("features", FloatTensorType([None, WIDTH]))]
            exported = convert_lightgbm(model, initial_types=kind, zipmap=False, target_opset=15)
        part = compose.add_prefix_graph(exported.graph, f"{number}/", rename_inputs=False)
        nodes += [node for node in part.node if f"{number}/label" not in node.output]
        constants += part.initializer
        columns.append(f"{number}/column")
        nodes.append(helper.make_node("Gather", [part.output[-1].name, "one_column"], columns[-1:], axis=1))
    nodes.append(helper.make_node("Concat", columns, ["actions"], axis=1))
    sides = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", WIDTH])]
    ends = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", len(models)])]
    opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph(nodes, "ranker", sides, ends, constants)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def bundle_of(folder, graph, golden):
    folder.mkdir()
    onnx.save(graph, folder / "ranker.onnx")
    save_file(golden, folder / "golden.safetensors")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    facts = {"version": folder.name, "schema_hash": core_rs.schema_hash(), "features": core_rs.feature_names()}
    times = dict.fromkeys(("create_ms", "train_start_ms", "train_end_ms", "event_count"), 1)
    (folder / "manifest.json").write_text(json.dumps({**facts, **times, "actions": ACTIONS, "files": files}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    graph = graph_of([boosted(0, num_leaves=31), boosted(1, num_leaves=70, min_child_samples=5)])
    path = tmp_path_factory.mktemp("trees") / "ranker.onnx"
    onnx.save(graph, path)
    rows = features(8, 3, missing=0.0)
    (actions,) = open_session(path).run(["actions"], {"features": rows})
    return bundle_of(path.parent / "one", graph, {"features": rows, "actions": actions})


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_compiled_trees_answer_like_onnxruntime(folder, missing):
    rows = features(1_003, 7, missing=missing)
    (expected,) = open_session(folder / "ranker.onnx").run(["actions"], {"features": rows})
    found = core_rs.Engine().load_bundle(folder).score(rows)
    assert found.shape == (1_003, 2)
    assert np.ptp(found) > 0.5
    assert np.abs(found - expected).max() < 1e-5


def test_a_ranker_of_trees_passes_the_check_and_needs_no_session(folder):
    check(folder)
    bundle = core_rs.Engine().load_bundle(folder)
    actions, degraded = Ranker(None, bundle).score(features(5, 9, missing=0.0))
    assert (actions.shape, degraded) == ((5, 2), "")


def test_another_graph_is_left_to_onnxruntime(tmp_path):
    weights = numpy_helper.from_array(np.full((WIDTH, 2), 0.01, np.float32), "weights")
    sides = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", WIDTH])]
    ends = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", 2])]
    nodes = [helper.make_node("MatMul", ["features", "weights"], ["actions"])]
    model = helper.make_model(helper.make_graph(nodes, "ranker", sides, ends, [weights]), ir_version=8)
    bundle = core_rs.Engine().load_bundle(bundle_of(tmp_path / "one", model, {"features": np.zeros((1, 1))}))
    assert bundle.score(features(5, 9, missing=0.0)) is None


def test_features_of_another_width_are_refused(folder):
    with pytest.raises(core_rs.InvalidRequestError, match="have 1 columns"):
        core_rs.Engine().load_bundle(folder).score(np.zeros((1, 1), np.float32))
