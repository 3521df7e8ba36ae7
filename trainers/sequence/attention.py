"""Transformer encoder: causal self-attention in layers that learn how much of themselves to add."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainers.sequence.encoder import Encoder

_HEAD_WIDTH = 64
_EXPANSION = 4


class Attention(nn.Module):
    """Multi-head self-attention of every event to itself and those before it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.n_heads = max(width // _HEAD_WIDTH, 1)
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, events: Tensor) -> Tensor:
        """Return what each event gathers, shape (b, length, width)."""
        heads = self.inward(events).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], is_causal=True)
        gathered: Tensor = self.outward(found.transpose(1, 2).flatten(-2))
        return gathered


class SwiGlu(nn.Module):
    """Feed-forward part: one half of the inner layer, through SiLU, gates the other.

    References
    ----------
    Shazeer 2020, GLU Variants Improve Transformer, equation 6.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inward = nn.Linear(width, 2 * _EXPANSION * width, bias=False)
        self.outward = nn.Linear(_EXPANSION * width, width, bias=False)

    def forward(self, events: Tensor) -> Tensor:
        """Return each event's own part, shape (b, length, width)."""
        gate, value = self.inward(events).chunk(2, dim=-1)
        found: Tensor = self.outward(functional.silu(gate) * value)
        return found


class GatedPart(nn.Module):
    """`x + sigmoid(W x) * part(norm(x))`, as in LiGR.

    References
    ----------
    Borisyuk et al. 2025, From Features to Transformers, section 3.2; Tikhonovich et al. 2025, eSASRec, equation 1.
    """

    def __init__(self, part: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.part = part
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, events: Tensor) -> Tensor:
        """Return `events` with the part added, shape (b, length, width)."""
        added: Tensor = events + self.gate(events).sigmoid() * self.dropout(self.part(self.norm(events)))
        return added


class AttentionEncoder(Encoder):
    """Encoder of `SasRec`: learned positions counted from the first event read, then the layers."""

    def __init__(self, seen: NDArray[np.bool_], *, width: int, layers: int, dropout: float, length: int) -> None:
        super().__init__(seen, width, dropout)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.05)
        parts = [GatedPart(part, width, dropout) for _ in range(layers) for part in (Attention(width), SwiGlu(width))]
        self.layers = nn.Sequential(*parts, nn.LayerNorm(width))

    def encode(self, events: Tensor) -> Tensor:
        """Return what is known after each event."""
        known: Tensor = self.layers(events + self.positions[: events.shape[1]])
        return known
