"""Recurrent encoder: gated recurrent units carry what is known from event to event."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.sequence.encoder import Encoder


class RecurrentEncoder(Encoder):
    """Encoder of `Gru4Rec`: the event itself, and what gated recurrent units kept of those before it.

    The way around the units lets a history point at items like its last one from the first step of learning on.
    """

    def __init__(self, seen: NDArray[np.bool_], *, width: int, hidden: int, dropout: float) -> None:
        super().__init__(seen, width, dropout)
        self.units = nn.GRU(width, hidden, batch_first=True)
        self.after = nn.Dropout(dropout)
        self.outward = nn.Linear(hidden, width)

    def encode(self, events: Tensor) -> Tensor:
        """Return what is known after each event."""
        known, _ = self.units(events)
        compared: Tensor = events + self.outward(self.after(known))
        return compared
