"""What both encoders share: how an event becomes a vector, and how vectors of items are read off."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainers.sequence.histories import Inputs

N_ACTIONS = 64
"""Rows of the table of event types; a number above the last is read as the last."""

GAPS_MS = tuple(1000 * 2**step for step in range(26))
"""Gaps of time fall into the spans between these: below a second, then twice as long each, to above a year."""

SHARPNESS = 14.0
"""Score of an item whose vector points where the history's does."""

UNKNOWN_SHARE = 0.01
"""Part of the events that are read as unknown items while learning, so that the model knows what to make of one."""

_SPREAD = 0.05


class Encoder(nn.Module, ABC):
    """Network that turns the events of a history, each with those before it, into vectors to compare items with.

    Items are compared by the cosine, times `SHARPNESS`: without their norms, popular items do not win everywhere.

    Parameters
    ----------
    seen : NDArray[np.bool_] of shape (n_items,)
        Items that the data to learn from hold; others are read as unknown.
    width : int
        Length of the vectors.
    dropout : float
        Share of the entries of an event's vector that are set to 0 while training.

    References
    ----------
    Gupta et al. 2019, NISER: Normalized Item and Session Representations, equation 6, for the cosine.
    """

    rows: Tensor
    bounds: Tensor

    def __init__(self, seen: NDArray[np.bool_], width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.unknown = len(seen) + 1
        known = np.concatenate([[True], seen, [True]])
        self.register_buffer("rows", torch.from_numpy(np.where(known, np.arange(len(known)), self.unknown)))
        self.items = nn.Embedding(self.unknown + 1, width, padding_idx=0)
        self.actions = nn.Embedding(N_ACTIONS, width)
        self.gaps = nn.Embedding(len(GAPS_MS) + 1, width)
        self.register_buffer("bounds", torch.tensor(GAPS_MS), persistent=False)
        self.dropout = nn.Dropout(dropout)
        for table in (self.items, self.actions, self.gaps):
            nn.init.normal_(table.weight, std=_SPREAD)

    @abstractmethod
    def encode(self, events: Tensor) -> Tensor:
        """Return what is known after each event, shape (b, length, width), from the events' vectors of that shape."""

    def forward(self, items: Tensor, actions: Tensor, gaps: Tensor) -> Tensor:
        """Return the vector after every event of padded rows, shape (b, length, width), of norm `SHARPNESS`."""
        rows = self.rows[items.clamp(0, self.unknown)]
        if self.training:
            rows = torch.where(torch.rand(rows.shape, device=rows.device) < UNKNOWN_SHARE, self.unknown, rows)
        span = (gaps[..., None] >= self.bounds).sum(dim=-1)
        events = self.items(rows) + self.actions(actions.clamp(0, N_ACTIONS - 1)) + self.gaps(span)
        states: Tensor = functional.normalize(self.encode(self.dropout(events)), dim=-1) * SHARPNESS
        return states

    def last(self, items: Tensor, actions: Tensor, gaps: Tensor) -> Tensor:
        """Return the vector after the last event of every row, shape (b, width); zeros for a row of padding only."""
        size = (items != 0).sum(dim=1)
        place = (size - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.width)
        vector: Tensor = self(items, actions, gaps).gather(1, place)[:, 0]
        return vector * (size > 0)[:, None]

    def vectors(self, items: Tensor) -> Tensor:
        """Return the vectors of items by their position in the item table, shape (n, width), of norm 1."""
        return functional.normalize(self.items(items + 1), dim=-1)

    @torch.no_grad()
    def answer(self, inputs: Inputs) -> NDArray[np.float32]:
        """Return the vector after every row of `inputs`, f32 (b, width), of an encoder on the CPU."""
        vector: NDArray[np.float32] = self.eval().last(*tensors_of(inputs, torch.device("cpu"))).numpy()
        return vector

    def table(self) -> NDArray[np.float32]:
        """Return the vector of every item, f32 (n_items, width), of an encoder on the CPU."""
        vectors: NDArray[np.float32] = self.vectors(torch.arange(self.unknown - 1)).detach().numpy()
        return vectors


def tensors_of(inputs: Inputs, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return items, actions and gaps as tensors on `device`."""
    items, actions, gaps = (torch.from_numpy(part).to(device) for part in (inputs.items, inputs.actions, inputs.gaps))
    return items, actions, gaps
