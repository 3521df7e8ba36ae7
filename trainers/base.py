"""What every trainer has in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from trainers.dataset import Dataset

Array = NDArray[Any]
Progress = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""
Tell = Callable[[str, float], None]
"""Called with what is being done and the share of it that is done."""

DAY_MS = 86_400_000


class OptionError(ValueError):
    """An option has a value that cannot be; the text says which can."""


class NotFittedError(RuntimeError):
    """A trainer was asked for what only `fit` can give."""


@dataclass(frozen=True)
class Artifact:
    """Files that an export wrote.

    Attributes
    ----------
    folder : Path
    files : tuple[str, ...]
        Names within `folder`, sorted.
    """

    folder: Path
    files: tuple[str, ...]


def no_progress(share: float) -> None:
    """Report no progress."""


class Estimator(ABC):
    """Model that learns from a `Dataset`.

    A subclass keeps its keyword hyper-parameters in `__init__`, a `seed` among them where anything is drawn, and does
    nothing else there. What `fit` learns ends in an underscore. Equal data and hyper-parameters give equal results.
    """

    @abstractmethod
    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Learn from the rows of `dataset` and return the model itself.

        Raises
        ------
        ValueError
            When the data hold no row to learn from, or a hyper-parameter is out of range.
        """

    def fitted(self, name: str) -> Any:
        """Return a fitted attribute, or say that there is none yet."""
        if not hasattr(self, name):
            raise NotFittedError(f"{type(self).__name__} has learnt nothing yet; call `fit` first")
        return getattr(self, name)


class Trainer(Estimator):
    """Estimator that exports files of a bundle; equal data and hyper-parameters give equal bytes."""

    @abstractmethod
    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return the arrays of every file of the bundle that this model makes, by file and tensor name.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """

    def export(self, folder: Path) -> Artifact:
        """Write the files of the model into `folder`, which is made if it is missing, and return their names.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        files = self.tensors()
        folder.mkdir(parents=True, exist_ok=True)
        for name, tensors in files.items():
            save_file({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()}, folder / name)
        return Artifact(folder, tuple(sorted(files)))


def rows_of(dataset: Dataset, *actions: str) -> Dataset:
    """Return the rows of these event types, of all without one; ValueError if there are none."""
    rows = dataset.of(*actions) if actions else dataset
    if not len(rows):
        name = " or ".join(actions) or "event"
        raise ValueError(f"the data hold no {name} row; import such events or train another model")
    return rows


def offsets_of(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of these sizes begins, and the total."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def once_a_basket(dataset: Dataset) -> Dataset:
    """Return one row of each item of each basket: a line that a receipt repeats says nothing new."""
    same = (np.diff(dataset.basket.astype(np.int64)) == 0) & (np.diff(dataset.item.astype(np.int64)) == 0)
    return dataset.where(np.concatenate([np.ones(min(len(dataset), 1), dtype=np.bool_), ~same]))
