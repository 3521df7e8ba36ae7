"""Softmax over a sample of the items, corrected for how often each was likely to be drawn."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Proposal:
    """Distribution that negatives are drawn from.

    Attributes
    ----------
    probability : NDArray[np.float64] of shape (n_items,)
        Sums to 1; above zero for every item, so that an item that was never seen is pushed away as well.
    """

    probability: NDArray[np.float64]

    @classmethod
    def of_counts(cls, counts: NDArray[np.int64], power: float) -> Self:
        """Draw in proportion to (count + 1) ** `power`: 0 is uniform, 1 as often as seen."""
        weight = (counts + 1.0) ** power
        return cls(weight / weight.sum())

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return `count` items, drawn independently, and the logarithm of how often each was to be expected among them.

        Where the items are no more than `count`, each comes once: the softmax is then exact.
        """
        if len(self.probability) <= count:
            return torch.arange(len(self.probability)), torch.zeros(len(self.probability))
        cumulative = np.cumsum(self.probability)
        drawn = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
        return torch.from_numpy(drawn), torch.from_numpy(np.log(self.probability[drawn] * count).astype(np.float32))


def cross_entropy(states: Tensor, targets: Tensor, negatives: Tensor, log_expected: Tensor, hits: Tensor) -> Tensor:
    """Return the summed loss of the targets, each among itself and the shared negatives.

    The target is there for certain and keeps its score; a negative stands for all items like it, so its score is
    lowered by the logarithm of its expected number of draws: the sum over the negatives then estimates without bias the
    sum over all items.

    Parameters
    ----------
    states : Tensor of shape (p, d)
        What the encoder makes of each history.
    targets : Tensor of shape (p, d)
        Vector of the item that came next.
    negatives : Tensor of shape (m, d)
        Vectors of the items that `Proposal.draw` gave.
    log_expected : Tensor of shape (m,)
    hits : Tensor of shape (p, m), bool
        Whether a negative is the target of a row; it does not count in that row.

    References
    ----------
    Bengio and Senécal 2008, Adaptive importance sampling, section III; Khrylchenko et al. 2025, Correcting the LogQ
    correction, equation 9, for the target that is not corrected.
    """
    positive = (states * targets).sum(dim=1)
    scores = torch.addmm(-log_expected, states, negatives.T).masked_fill_(hits, torch.finfo(states.dtype).min)
    return (torch.logaddexp(positive, scores.logsumexp(dim=1)) - positive).sum()
