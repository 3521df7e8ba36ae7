"""The ranker as a small network."""

from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from threadpoolctl import threadpool_limits

from trainers.base import Progress
from trainers.calibration import Calibration
from trainers.network import Adam, Layer, Network
from trainers.ranker import SERVED_EXPOSURE, Ranker, Rows
from trainers.sessions import OPSET

_LEAST_STEPS, _LEAST_BATCH = 100, 32
_ROWS_AT_ONCE = 1 << 16
_CONSTANT = 1e-6
"""Deviation below which a column tells nothing; what it would do when it moves cannot be known."""


class NetworkRanker(Ranker):
    """Network of fully connected layers with ReLU between and a sigmoid at the end.

    Standardisation and, in the exported graph, the exposure when served are folded into the first layer, calibration
    into the last, so the graph reads raw features.

    Parameters
    ----------
    hidden : tuple[int, ...]
        Width of the layers between.
    epochs : int
        Passes over the rows.
    learning_rate : float
        Greatest of Adam's steps.
    batch_size : int
        Rows of one step; a small shop takes fewer, so that an epoch has a hundred steps.
    without : tuple[int, ...]
        Columns that it must not read.
    seed : int

    Attributes
    ----------
    layers_ : list[Layer]
        Weights of shape (width before, width) and bias of each layer, before calibration. The first reads raw features
        and, last, the exposure.
    """

    layers_: list[Layer]

    def __init__(  # noqa: PLR0913 - hyper-parameters
        self,
        *,
        hidden: tuple[int, ...] = (48, 24),
        epochs: int = 14,
        learning_rate: float = 5e-3,
        batch_size: int = 2048,
        without: tuple[int, ...] = (),
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.without = without
        self.seed = seed

    def graph(self) -> onnx.ModelProto:
        """Return the network as ONNX: `features` (n, d) to `actions` (n, h)."""
        layers = self._served()
        nodes, tensors, name = [], [], "features"
        for number, (weights, bias) in enumerate(layers):
            tensors += [
                numpy_helper.from_array(weights, f"weights{number}"),
                numpy_helper.from_array(bias, f"bias{number}"),
            ]
            nodes.append(helper.make_node("Gemm", [name, f"weights{number}", f"bias{number}"], [f"sum{number}"]))
            last = number == len(layers) - 1
            name = "actions" if last else f"hidden{number}"
            nodes.append(helper.make_node("Sigmoid" if last else "Relu", [f"sum{number}"], [name]))
        inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", len(layers[0][0])])]
        outputs = [helper.make_tensor_value_info("actions", TensorProto.FLOAT, ["n", len(layers[-1][1])])]
        graph = helper.make_graph(nodes, "ranker", inputs, outputs, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    @classmethod
    def blank(cls, width: int, actions: int) -> Self:
        """Return a ranker that answers 0.5 to everything; with it in a bundle the engine computes features."""
        ranker = cls()
        ranker.layers_ = [(np.zeros((width + 1, actions), np.float32), np.zeros(actions, np.float32))]
        ranker.calibrations_ = [Calibration()] * actions
        return ranker

    def _learn(self, rows: Rows, progress: Progress) -> None:
        table = np.column_stack([rows.features, rows.exposure])
        mean, scale = _moments(table)
        told = scale >= _CONSTANT
        told[list(self.without)] = False
        inputs = table.compress(told, axis=1)  # in order of rows, which an index of columns is not
        mean, scale = mean[told], scale[told]
        inputs -= mean.astype(np.float32)
        inputs /= scale.astype(np.float32)
        network = self._fit_network(inputs, rows, progress)
        first = network.weights[0] / scale[:, None]
        bias = network.biases[0] - mean @ first
        weights = np.zeros((len(told), first.shape[1]), np.float32)
        weights[told] = first
        biases = [bias.astype(np.float32), *network.biases[1:]]
        self.layers_ = list(zip([weights, *network.weights[1:]], biases, strict=True))

    def _fit_network(self, inputs: NDArray[np.float32], rows: Rows, progress: Progress) -> Network:
        rng = np.random.default_rng(self.seed)
        labels = np.ascontiguousarray(rows.labels, np.float32)
        weights = np.ascontiguousarray(rows.weights / rows.weights.mean())
        prior = np.average(labels, axis=0, weights=weights).astype(np.float32)
        network = Network((inputs.shape[1], *self.hidden, labels.shape[1]), prior, rng)
        size = min(self.batch_size, max(len(rows) // _LEAST_STEPS, _LEAST_BATCH))
        starts = range(0, max(len(rows) - size, 0) + 1, size)
        adam = Adam(network.parameters, self.learning_rate, self.epochs * len(starts))
        with threadpool_limits(1):  # over such small matrices threads wait for each other longer than they work
            for epoch in range(self.epochs):
                order = rng.permutation(len(rows))
                for start in starts:
                    batch = order[start : start + size]
                    # Twice as fast as an index, but a table that is not in order of rows is copied whole.
                    drawn = (table.take(batch, axis=0) for table in (inputs, labels, weights))
                    adam.step(network.gradients(*drawn))
                progress((epoch + 1) / self.epochs)
        return network

    def _logits(self, features: NDArray[np.float32], exposure: NDArray[np.float32]) -> NDArray[np.float32]:
        values = np.column_stack([features, exposure])
        *between, (weights, bias) = self._fitted()
        for inner, offset in between:
            values = np.maximum(values @ inner + offset, 0)
        return values @ weights + bias

    def _served(self) -> list[Layer]:
        """Return the layers that read features alone: the exposure is that of serving, the last layer is calibrated."""
        layers = list(self._fitted())
        weights, bias = layers[0]
        layers[0] = weights[:-1], bias + SERVED_EXPOSURE * weights[-1]
        weights, bias = layers[-1]
        slope, offset = np.array([(found.slope, found.offset) for found in self.calibrations_], np.float32).T
        layers[-1] = weights * slope, bias * slope + offset
        return layers

    def _fitted(self) -> list[Layer]:
        if not hasattr(self, "layers_"):
            raise self.not_fitted()
        return self.layers_


def _moments(table: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation of each column, without a copy of all rows in double precision."""
    mean = table.mean(axis=0, dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        squares += ((table[start : start + _ROWS_AT_ONCE] - mean) ** 2).sum(axis=0)
    return mean, np.sqrt(squares / len(table))
