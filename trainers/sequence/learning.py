"""Learning of an encoder: predict every next item, stop when held-out ones are predicted no better."""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.base import Progress
from trainers.sequence.encoder import Encoder, tensors_of
from trainers.sequence.histories import Histories, Integers, Windows
from trainers.sequence.processes import Processes
from trainers.sequence.settings import Training
from trainers.sequence.softmax import Proposal, cross_entropy

_HELD_OUT_SHARE, _MOST_HELD_OUT, _LEAST_EVENTS = 0.1, 2000, 3
_LEAST_STEPS, _LEAST_TARGETS = 20, 64
_WARM_UP_STEPS = 100
_MEASURE_BATCH = 256
_REMEMBER_STEPS = 5


class Objective(nn.Module):
    """Encoder with its loss, so that one forward pass uses every weight."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, inputs: tuple[Tensor, Tensor, Tensor], targets: Tensor, drawn: tuple[Tensor, Tensor]) -> Tensor:
        """Return the summed loss of all targets above zero, shape ()."""
        states = self.encoder(*inputs)
        asked = targets > 0
        negatives, log_expected = drawn
        wanted = targets[asked] - 1
        hits = negatives == wanted[:, None]
        vectors = self.encoder.vectors
        return cross_entropy(states[asked], vectors(wanted), vectors(negatives), log_expected, hits)


@dataclass(frozen=True)
class TrainingData:
    """Data to learn from.

    Attributes
    ----------
    histories : Histories
    held_out : NDArray[np.bool_] of shape (n,)
        Histories whose last event is not learnt from but predicted, to know when to stop.
    windows : Windows
    proposal : Proposal
    """

    histories: Histories
    held_out: NDArray[np.bool_]
    windows: Windows
    proposal: Proposal

    @classmethod
    def of(cls, histories: Histories, n_items: int, training: Training, rng: np.random.Generator) -> "TrainingData":
        """Hold out the last event of a tenth of the histories, 2,000 at most; none where that is less than one."""
        is_target = histories.is_target
        long = np.flatnonzero(np.diff(histories.offsets) >= _LEAST_EVENTS)
        long = long[is_target[histories.offsets[1:][long] - 1]]
        held_out = np.zeros(len(histories), dtype=np.bool_)
        held_out[rng.permutation(long)[: min(int(len(long) * _HELD_OUT_SHARE), _MOST_HELD_OUT)]] = True
        windows = Windows.over(histories.offsets, training.window, held_out).with_targets(is_target)
        if not len(windows.stops):
            raise ValueError("the data hold no visitor with two events to learn an order from; train another model")
        counts = np.bincount(histories.items[is_target] - 1, minlength=n_items)
        return cls(histories, held_out, windows, Proposal.of_counts(counts, training.power))


class TrainingRun:
    """Training of one encoder.

    Parameters
    ----------
    encoder : Encoder
        Changed in place.
    data : TrainingData
    training : Training
    group : Processes
    rng : np.random.Generator
        In the same state in every process of `group`.
    """

    def __init__(
        self, encoder: Encoder, data: TrainingData, training: Training, group: Processes, rng: np.random.Generator
    ) -> None:
        self.data = data
        self.training = training
        self.group = group
        self.rng = rng
        torch.manual_seed(int(rng.integers(2**31)) + group.rank)
        self.objective = group.share(Objective(encoder))
        self.encoder = encoder
        self.average = copy.deepcopy(encoder)
        self.adam = torch.optim.AdamW(
            encoder.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        self.steps = 0

    def run(self, progress: Progress) -> Encoder:
        """Return the encoder of the epoch that predicted held-out events best; the last one where there are none."""
        best, best_epoch, kept = -np.inf, 0, self.average
        for epoch in range(self.training.epochs):
            self._epoch()
            measure = self._measure()
            if measure > best:
                best, best_epoch, kept = measure, epoch, copy.deepcopy(self.average)
            progress((epoch + 1) / self.training.epochs)
            if epoch - best_epoch >= self.training.patience:
                break
        progress(1.0)
        return kept.eval()

    def _epoch(self) -> None:
        self.encoder.train()
        windows = self.data.windows
        n_targets = int((windows.stops - windows.starts).sum())
        size = min(self.training.batch_targets, max(n_targets // _LEAST_STEPS, _LEAST_TARGETS))
        for batch in windows.batches(size, self.rng):
            self._step(batch)

    def _step(self, batch: Integers) -> None:
        """Learn from this process's share of the windows of `batch`."""
        windows, group = self.data.windows, self.group
        n_targets = int((self.data.histories.targets(windows.starts[batch], windows.stops[batch]) > 0).sum())
        mine = batch[group.rank :: group.size]
        weight = group.size / n_targets if len(mine) else 0.0
        mine = mine if len(mine) else batch[:1]
        starts, stops = windows.starts[mine], windows.stops[mine]
        inputs = tensors_of(self.data.histories.inputs(starts, stops), group.device)
        targets = torch.from_numpy(self.data.histories.targets(starts, stops)).to(group.device)
        negatives, log_expected = self.data.proposal.draw(self.training.negatives, self.rng)
        drawn = negatives.to(group.device), log_expected.to(group.device)
        for part in self.adam.param_groups:
            part["lr"] = self.training.learning_rate * min(1.0, (self.steps + 1) / _WARM_UP_STEPS)
        self.adam.zero_grad()
        (self.objective(inputs, targets, drawn) * weight).backward()
        self.adam.step()
        self.steps += 1
        if self.steps % _REMEMBER_STEPS == 0:
            self._remember()

    @torch.no_grad()
    def _remember(self) -> None:
        share = 1 - min(self.training.average**_REMEMBER_STEPS, self.steps / (self.steps + 10 * _REMEMBER_STEPS))
        for kept, fresh in zip(self.average.parameters(), self.encoder.parameters(), strict=True):
            kept.lerp_(fresh, share)

    @torch.no_grad()
    def _measure(self) -> float:
        """Return the mean of 1 / log2(1 + rank) of the held-out events, ranked among all items."""
        histories, encoder = self.data.histories, self.average.eval()
        asked = np.flatnonzero(self.data.held_out)
        if not len(asked):
            return float(self.steps)
        starts, stops = histories.latest(self.training.window + 1)
        vectors = encoder.vectors(torch.arange(encoder.unknown - 1, device=self.group.device)).T
        found = 0.0
        mine = asked[self.group.rank :: self.group.size]
        for batch in (mine[start : start + _MEASURE_BATCH] for start in range(0, len(mine), _MEASURE_BATCH)):
            last = stops[batch] - 1
            target = torch.from_numpy(histories.items[last] - 1).to(self.group.device)
            scores = encoder.last(*tensors_of(histories.inputs(starts[batch], last), self.group.device)) @ vectors
            rank = 1 + (scores > scores.gather(1, target[:, None])).sum(dim=1)
            found += float((1 / torch.log2(1 + rank)).sum())
        return self.group.total(found) / len(asked)
