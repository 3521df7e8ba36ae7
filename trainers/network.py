"""A small network and its fit: ReLU between the layers, a sigmoid at the end, weighted cross-entropy, Adam.

The learning rate falls to nothing along a cosine.

References
----------
Kingma and Ba 2015, Adam; Loshchilov and Hutter 2017, SGDR, for the cosine.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Layer = tuple[Floats, Floats]
"""Weights of shape (width before, width) and bias."""

_MOMENTUM, _SPREAD, _TINY = 0.9, 0.999, 1e-8
_WARM_UP_STEPS = 100


class Network:
    """Fully connected layers.

    Parameters
    ----------
    widths : tuple[int, ...]
        Of the inputs, of each layer between, of the outputs.
    prior : Floats
        Probabilities, one an output, that an untaught network answers to everything.
    rng : np.random.Generator
    """

    def __init__(self, widths: tuple[int, ...], prior: Floats, rng: np.random.Generator) -> None:
        shapes = list(pairwise(widths))
        self.weights = [
            rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / max(shape[0], 1))) for shape in shapes
        ]
        self.biases = [np.zeros(width, np.float32) for width in widths[1:]]
        self.weights[-1] *= np.float32(0.1)
        self.biases[-1][:] = np.log(prior / (1 - prior))

    def activations(self, inputs: Floats) -> list[Floats]:
        """Return the inputs, what each layer between makes of them, and the logits."""
        found = [inputs]
        for number, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            sums = found[-1] @ weights + bias
            found.append(np.maximum(sums, 0) if number < len(self.weights) - 1 else sums)
        return found

    def gradients(self, inputs: Floats, labels: Floats, importance: Floats) -> list[Floats]:
        """Return the gradient of the mean weighted cross-entropy by each of `parameters`.

        Labels and importance have the shape of the outputs.
        """
        found = self.activations(inputs)
        back = (sigmoid(found[-1]) - labels) * (importance / len(inputs))
        by_weights, by_bias = [], []
        for number in range(len(self.weights) - 1, -1, -1):
            by_weights.append(found[number].T @ back)
            by_bias.append(back.sum(axis=0))
            if number:
                back = (back @ self.weights[number].T) * (found[number] > 0)
        return [*reversed(by_weights), *reversed(by_bias)]

    @property
    def parameters(self) -> list[Floats]:
        """The weights and then the biases, to be changed in place."""
        return [*self.weights, *self.biases]


class Adam:
    """Steps of a given number, warmed up and then falling by a cosine.

    Parameters
    ----------
    parameters : list[Floats]
        Changed in place.
    rate : float
        Greatest learning rate.
    steps : int
        All that will be taken.
    """

    def __init__(self, parameters: list[Floats], rate: float, steps: int) -> None:
        self.parameters = parameters
        self.rate = rate
        self.steps = steps
        self.taken = 0
        self._means = [np.zeros_like(parameter) for parameter in parameters]
        self._squares = [np.zeros_like(parameter) for parameter in parameters]

    def step(self, gradients: list[Floats]) -> None:
        """Move every parameter against its gradient."""
        self.taken += 1
        falling = 0.5 + 0.5 * np.cos(np.pi * self.taken / self.steps)
        rate = np.float32(self.rate * falling * min(1.0, self.taken / _WARM_UP_STEPS))
        mean_share, square_share = 1 - _MOMENTUM**self.taken, 1 - _SPREAD**self.taken
        for parameter, gradient, mean, square in zip(
            self.parameters, gradients, self._means, self._squares, strict=True
        ):
            np.add(mean, (1 - _MOMENTUM) * (gradient - mean), out=mean)
            np.add(square, (1 - _SPREAD) * (gradient * gradient - square), out=square)
            step = rate * (mean / mean_share) / (np.sqrt(square / square_share) + _TINY)
            np.subtract(parameter, step, out=parameter)


def sigmoid(logits: Floats) -> Floats:
    """Return probabilities of logits, without overflow."""
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), dtype=np.float32)
