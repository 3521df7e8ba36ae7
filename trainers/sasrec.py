"""SASRec: what a visitor does next, by attention to what they did."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainers.sequence.model import SequenceModel
from trainers.sequence.settings import DEFAULT_TRAINING, Training

if TYPE_CHECKING:
    from trainers.sequence.encoder import Encoder


class SasRec(SequenceModel):
    """SASRec: causal self-attention over the events of a history, trained by a sampled softmax of every next item.

    Parameters
    ----------
    n_factors : int
        Length of the vectors, one of `WIDTHS`.
    n_layers : int
        Pairs of attention and feed-forward part.
    dropout : float
        Share of entries that are set to 0 while training, 0 to 1.
    training : Training
    seed : int

    References
    ----------
    Kang and McAuley 2018, Self-Attentive Sequential Recommendation; Tikhonovich et al. 2025, eSASRec: Enhancing
    Transformer-based Recommendations in a Modular Fashion, for the layers and the loss.

    Examples
    --------
    >>> from trainers.toy import question, toy
    >>> model = SasRec(n_factors=16, training=Training(epochs=1)).fit(toy())
    >>> model.score(question("coffee", "milk")).shape
    (1, 6)
    """

    def __init__(
        self,
        *,
        n_factors: int = 64,
        n_layers: int = 1,
        dropout: float = 0.4,
        training: Training = DEFAULT_TRAINING,
        seed: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.n_layers = n_layers
        self.dropout = dropout
        self.training = training
        self.seed = seed

    def new_encoder(self, seen: NDArray[np.bool_]) -> "Encoder":
        """Return an encoder with random weights."""
        from trainers.sequence.attention import AttentionEncoder  # noqa: PLC0415 - needs torch

        return AttentionEncoder(
            seen,
            width=self.n_factors,
            layers=self.n_layers,
            dropout=self.dropout,
            length=self.training.window,
        )
