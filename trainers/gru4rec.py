"""GRU4Rec: what a visitor does next, by a state that every event changes."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainers.sequence.model import SequenceModel
from trainers.sequence.settings import DEFAULT_TRAINING, Training

if TYPE_CHECKING:
    from trainers.sequence.encoder import Encoder


class Gru4Rec(SequenceModel):
    """GRU4Rec: gated recurrent units over the events of a history, trained by a sampled softmax of every next item.

    Parameters
    ----------
    n_factors : int
        Length of the vectors, one of `WIDTHS`.
    hidden : int
        Width of the state.
    dropout : float
        Share of entries that are set to 0 while training, 0 to 1.
    training : Training
    seed : int

    References
    ----------
    Hidasi and Karatzoglou 2018, Recurrent Neural Networks with Top-k Gains for Session-based Recommendations.

    Examples
    --------
    >>> from trainers.toy import question, toy
    >>> model = Gru4Rec(n_factors=16, training=Training(epochs=1)).fit(toy())
    >>> model.score(question("coffee", "milk")).shape
    (1, 6)
    """

    def __init__(
        self,
        *,
        n_factors: int = 64,
        hidden: int = 128,
        dropout: float = 0.3,
        training: Training = DEFAULT_TRAINING,
        seed: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.hidden = hidden
        self.dropout = dropout
        self.training = training
        self.seed = seed

    def new_encoder(self, seen: NDArray[np.bool_]) -> "Encoder":
        """Return an encoder with random weights."""
        from trainers.sequence.recurrence import RecurrentEncoder  # noqa: PLC0415 - needs torch

        return RecurrentEncoder(seen, width=self.n_factors, hidden=self.hidden, dropout=self.dropout)
