"""What the sequence models have in common: learn, score, export."""

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from trainers.base import Array, Artifact, Progress, Trainer, no_progress, rows_of
from trainers.clusters import clustered
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender
from trainers.sequence.histories import Histories
from trainers.sequence.settings import Training

if TYPE_CHECKING:
    from trainers.sequence.encoder import Encoder

GRAPH_FILE, ITEMS_FILE, GOLDEN_FILE = "sequence.onnx", "sequence_items.safetensors", "sequence_golden.safetensors"

HOW_TO_INSTALL = "needs PyTorch; install it with `pip install 'shopkeeper[torch]'`"
"""Follows the name of a model in a message."""

WIDTHS = (16, 32, 48, 64, 128, 192, 256)
"""Lengths of vectors: what the scan of item vectors takes and heads of attention divide."""


class MissingTorchError(ValueError):
    """A sequence model was to learn where PyTorch is not installed."""


class SequenceModel(Recommender, Trainer):
    """Encoder of histories whose vector, times that of an item, is the item's score.

    An unknown visitor needs no model of its own: the history is all that is read. A history without events scores 0
    for every item.

    Attributes
    ----------
    encoder_ : Encoder
        With the vectors of the items within.
    """

    n_factors: int
    training: Training
    seed: int
    encoder_: "Encoder"

    @abstractmethod
    def new_encoder(self, seen: NDArray[np.bool_]) -> "Encoder":
        """Return an encoder of the hyper-parameters for the items that data hold (`seen`, shape (n_items,))."""

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Learn to predict every event from those before it; the last of some histories say when to stop.

        Impressions are left out: they are what the shop showed. What visitors took back is read and is no target.

        In processes started by `torchrun` all learn together and keep the same weights.

        Raises
        ------
        MissingTorchError
            Where PyTorch is not installed; the text says how to install it.
        """
        rows = rows_of(dataset)
        if self.n_factors not in WIDTHS:
            raise ValueError(f"n_factors is {self.n_factors}; take one of {', '.join(map(str, WIDTHS))}")
        if not has_torch():
            raise MissingTorchError(f"{type(self).__name__} {HOW_TO_INSTALL}")
        from trainers.sequence.learning import TrainingData, TrainingRun  # noqa: PLC0415 - needs torch
        from trainers.sequence.processes import processes, repeatable  # noqa: PLC0415 - needs torch

        rng = np.random.default_rng(self.seed)
        histories = Histories.of_dataset(rows, rng)
        data = TrainingData.of(histories, dataset.n_items, self.training, rng)
        seen = np.bincount(histories.items - 1, minlength=dataset.n_items) > 0
        group = processes()
        with repeatable(self.seed):
            encoder = self.new_encoder(seen).to(group.device)
            self.encoder_ = TrainingRun(encoder, data, self.training, group, rng).run(progress).cpu()
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the product of each history's vector with every item's, shape (n, n_items)."""
        encoder: Encoder = self.fitted("encoder_")
        histories = Histories.of_queries(queries)
        starts, stops = histories.latest(self.training.window)
        return encoder.answer(histories.inputs(starts, stops)) @ encoder.table().T

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return `vectors` of the items, f32 (n_items, n_factors), maybe clustered, and golden inputs with `vector`."""
        encoder = self.fitted("encoder_")
        from trainers.sequence.graph import golden  # noqa: PLC0415 - needs torch

        items = clustered(encoder.table(), self.seed)
        return {ITEMS_FILE: items, GOLDEN_FILE: golden(encoder, self.training.window, self.seed)}

    def export(self, folder: Path) -> Artifact:
        """Write the tensors and `sequence.onnx` into `folder`, which is made if it is missing."""
        artifact = super().export(folder)
        from trainers.sequence.graph import write  # noqa: PLC0415 - needs torch

        write(self.encoder_, self.training.window, folder / GRAPH_FILE)
        return Artifact(folder, tuple(sorted((*artifact.files, GRAPH_FILE))))


def has_torch() -> bool:
    """Return whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None
