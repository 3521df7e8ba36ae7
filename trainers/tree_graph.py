"""Boosted trees of LightGBM as one ONNX graph, whose comparisons in 32 bits go the way of those in 64."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from trainers.ranker import SERVED_EXPOSURE
from trainers.sessions import OPSET

_ML_OPSET = 3
_GREATEST = float(np.finfo(np.float32).max)
_NODE = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
)
_LEAF = ("target_treeids", "target_nodeids", "target_ids", "target_weights")

Node = Mapping[str, Any]
"""Node as `lightgbm.Booster.dump_model` gives it."""


@dataclass(frozen=True)
class Ensemble:
    """Trees whose leaves, times `scale`, are added to `base`.

    Attributes
    ----------
    roots : list[Node]
    scale, base : float
    """

    roots: list[Node]
    scale: float
    base: float


def graph_of(ensembles: Sequence[Ensemble], width: int) -> onnx.ModelProto:
    """Return the graph from `features` (n, width) to `actions` (n, h): the logistic function of each ensemble's sum.

    Column `width` of the trees is the exposure; the graph has it at the value that is served.
    """
    columns = _Columns(width)
    for action, ensemble in enumerate(ensembles):
        for root in ensemble.roots:
            columns.add_tree(root, action, ensemble.scale)
    attributes: dict[str, Any] = {
        **columns.attributes,
        "n_targets": len(ensembles),
        "base_values": [float(np.float32(ensemble.base)) for ensemble in ensembles],
        "post_transform": "NONE",
    }
    sums = helper.make_node("TreeEnsembleRegressor", ["features"], ["sums"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [sums, helper.make_node("Sigmoid", ["sums"], ["actions"])],
        "ranker",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", len(ensembles)])],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model


@dataclass
class _Columns:
    """Attributes of the operator, one entry a node or a leaf."""

    width: int
    trees: int = 0
    attributes: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in (*_NODE, *_LEAF)})

    def add_tree(self, root: Node, action: int, scale: float) -> None:
        """Append a tree that adds to `action`."""
        self._add(root, 0, action, scale)
        self.trees += 1

    def _add(self, node: Node, number: int, action: int, scale: float) -> int:
        """Append a node, numbered `number`, with what is below it; return the next free number."""
        while node.get("split_feature") == self.width:
            node = node["left_child" if node["threshold"] >= SERVED_EXPOSURE else "right_child"]
        if "split_feature" not in node:
            self._append(_NODE, (self.trees, number, 0, "LEAF", 0.0, 0, 0))
            self._append(_LEAF, (self.trees, number, action, float(np.float32(scale * node["leaf_value"]))))
            return number + 1
        threshold = rounded_down(node["threshold"])
        self._append(_NODE, (self.trees, number, node["split_feature"], "BRANCH_LEQ", threshold, number + 1, 0))
        place = len(self.attributes["nodes_nodeids"]) - 1
        right = self._add(node["left_child"], number + 1, action, scale)
        self.attributes["nodes_falsenodeids"][place] = right
        return self._add(node["right_child"], right, action, scale)

    def _append(self, names: Sequence[str], values: Sequence[Any]) -> None:
        for name, value in zip(names, values, strict=True):
            self.attributes[name].append(value)


def rounded_down(threshold: float) -> float:
    """Return the greatest 32-bit number that is not above `threshold`: the same 32-bit values are at most either.

    >>> rounded_down(0.1) < 0.1 < rounded_down(0.1) + 1e-8
    True
    """
    within = float(np.clip(threshold, -_GREATEST, _GREATEST))
    near = np.float32(within)
    return float(near if float(near) <= within else np.nextafter(near, np.float32(-np.inf)))
