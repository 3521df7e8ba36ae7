"""An encoder that must not serve is refused before it is published, and the text says what to mend."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file, save_file

from server.bundle_check import check
from server.graph_check import CheckError
from tests.bundle_maker import ITEMS, BundleMaker
from tests.encoded_shop import FILES, LENGTH, WIDTH, encoder, graph_of, item_vectors, write_encoder

VECTORS = item_vectors(len(ITEMS))
GRAPH, VECTORS_FILE, GOLDEN = FILES


def altered(nodes=(), **constants):
    """Return the encoder with nodes between its sum and its output."""
    model = encoder(VECTORS)
    model.graph.node[-1].output[0] = "sum"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


def nan_where_large():
    """Right on its golden vectors, NaN for a great gap."""
    nodes = [
        helper.make_node("Cast", ["gaps"], ["times"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["times", "axes"], ["time"], keepdims=1),
        helper.make_node("Mul", ["time", "huge"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "scaled"], ["zero"]),
        helper.make_node("Add", ["sum", "zero"], ["vector"]),
    ]
    return altered(nodes, huge=np.float32(1e36))


def narrow():
    nodes = [helper.make_node("Slice", ["sum", "zeros", "four", "axes"], ["vector"])]
    return altered(nodes, zeros=np.array([0]), four=np.array([4]))


def slow():
    size = 2_000
    nodes = [helper.make_node("MatMul", ["sum", "wide"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{n}", "square"], [f"x{n + 1}"]) for n in range(30)]
    nodes += [
        helper.make_node("MatMul", ["x30", "tall"], ["tail"]),
        helper.make_node("Add", ["sum", "tail"], ["vector"]),
    ]
    shapes = {"wide": (WIDTH, size), "square": (size, size), "tall": (size, WIDTH)}
    return altered(nodes, **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def fixed_batch():
    """Takes as many histories as its golden vectors are, and no other number."""
    nodes = [
        helper.make_node("Reshape", ["sum", "shape"], ["same"]),
        helper.make_node("Mul", ["same", "one"], ["vector"]),
    ]
    return altered(nodes, shape=np.array([4, WIDTH]), one=np.float32(1))


GOOD = encoder(VECTORS)
BAD = {
    "no ONNX": (b"nothing", "is no ONNX model"),
    "foreign operator": (altered([helper.make_node("Tanh", ["sum"], ["vector"])]), "uses operator ai.onnx.Tanh"),
    "other inputs": (graph_of(GOOD.graph.node, {}, inputs=("items", "actions")), "does not load|has inputs"),
    "squared": (altered([helper.make_node("Mul", ["sum", "sum"], ["vector"])]), "golden vectors"),
    "other answers": (encoder(VECTORS, scale=1.01), "golden vectors"),
    "narrow": (narrow(), "must be as wide as the items' vectors, 16"),
    "NaN": (nan_where_large(), "NaN or infinity"),
    "slow": (slow(), "for 64 histories; it may take 100"),
    "fixed batch": (fixed_batch(), "sequence.onnx fails"),
}


def offered(tmp_path, change=lambda _: None):
    folder = tmp_path / "one"
    folder.mkdir()
    write_encoder(folder, VECTORS)
    change(folder)
    return tmp_path / BundleMaker(tmp_path).make(folder.name)


def test_a_good_encoder_passes(tmp_path):
    check(offered(tmp_path))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_graph_is_refused_with_its_fault(tmp_path, name):
    graph, fault = BAD[name]
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    folder = offered(tmp_path, lambda folder: (folder / GRAPH).write_bytes(data))
    with pytest.raises(CheckError, match=fault):
        check(folder)


@pytest.mark.parametrize(
    "golden",
    [
        {"actions": np.ones((3, LENGTH), np.int64)},
        {"items": np.ones((4, LENGTH), np.int32)},
        {"items": np.ones((4, LENGTH + 1), np.int64)},
        {"vector": np.ones((0, WIDTH), np.float32)},
        {"vector": np.ones((4, WIDTH + 1), np.float32)},
    ],
)
def test_golden_vectors_that_cannot_be_used_are_refused(tmp_path, golden):
    def change(folder):
        save_file(load_file(folder / GOLDEN) | golden, folder / GOLDEN)

    with pytest.raises(CheckError, match=r"sequence_golden\.safetensors has"):
        check(offered(tmp_path, change))
