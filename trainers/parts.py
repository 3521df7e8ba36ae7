"""Parts of a bundle that are there on request: content vectors of items, an encoder of histories."""

from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

import core_rs
from trainers.base import OptionError, Progress, Trainer, no_progress
from trainers.dataset import Dataset
from trainers.lsa_vectors import LsaVectors
from trainers.sasrec import SasRec
from trainers.sequence.histories import NO_TARGETS
from trainers.sequence.model import HOW_TO_INSTALL, MissingTorchError, has_torch
from trainers.sequence.settings import DEFAULT_TRAINING

CONTENT, SEQUENCE = "content", "sequence"
PARTS = (CONTENT, SEQUENCE)
_MODELS: dict[str, type[Trainer]] = {CONTENT: LsaVectors, SEQUENCE: SasRec}

_GROWTH = 1.2
"""An encoder is trained again when the events are so many times those it learnt from."""


def parts_of(text: str) -> tuple[str, ...]:
    """Return the parts that a comma-separated `text` names.

    Raises
    ------
    OptionError
        Where one is unknown.
    MissingTorchError
        Where an encoder is asked for and PyTorch is not installed.

    >>> parts_of("sequence, content")
    ('content', 'sequence')
    """
    names = {name.strip() for name in text.split(",")} - {""}
    if unknown := sorted(names - set(PARTS)):
        raise OptionError(f"there is no part {', '.join(unknown)} of a bundle; take {' or '.join(PARTS)}")
    if SEQUENCE in names and not has_torch():
        raise MissingTorchError(f"the part {SEQUENCE} {HOW_TO_INSTALL}, or leave it out")
    return tuple(name for name in PARTS if name in names)


def left_out(names: Iterable[str], models: Iterable[Trainer]) -> list[str]:
    """Return the parts that were asked for and that no model is of: there was nothing to learn them from."""
    kinds = {type(model) for model in models}
    return [name for name in names if _MODELS[name] not in kinds]


class Parts:
    """Models of the parts that a bundle has on request, for each moment that training looks at.

    An encoder takes minutes to learn, so moments share the one of an earlier moment, which knew nothing of what
    followed either, until the events have grown by a fifth. A bundle that serves gets its own.

    Parameters
    ----------
    names : Collection[str]
        Of `PARTS`.
    seed : int
    """

    def __init__(self, names: Collection[str], seed: int) -> None:
        self.names = names
        self.seed = seed
        self._encoder: SasRec | None = None
        self._learnt_from = 0

    def at(self, dataset: Dataset, progress: Progress = no_progress, *, latest: bool = False) -> list[Trainer]:
        """Return the fitted models of a moment before which are the rows of `dataset`; moments come in order of time.

        Where `latest`, all of it was learnt from.
        """
        models: list[Trainer] = []
        if CONTENT in self.names and len(dataset):
            models.append(LsaVectors(seed=self.seed).fit(dataset))
        visitors = dataset.visitor[~np.isin(dataset.action, NO_TARGETS)]
        if SEQUENCE in self.names and np.bincount(visitors, minlength=1).max() > 1:
            if self._encoder is None or latest or len(dataset) > _GROWTH * self._learnt_from:
                training = replace(DEFAULT_TRAINING, window=core_rs.history_length())
                self._encoder = SasRec(training=training, seed=self.seed).fit(dataset, progress)
                self._learnt_from = len(dataset)
            models.append(self._encoder)
        return models
