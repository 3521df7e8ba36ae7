"""Vectors of items whose products say how alike they are by what the shop says about them."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import normalize
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from trainers.base import Array, Progress, Trainer, no_progress
from trainers.clusters import clustered
from trainers.content import Content
from trainers.dataset import Dataset

ITEMS_FILE = "content_items.safetensors"


class LsaVectors(Trainer):
    """LSA: the terms of `Content`, by their strongest common directions.

    Parameters
    ----------
    n_factors : int
        Length of the vectors; less where the shop has fewer terms or items.
    idf : float
        As in `Content`.
    vectors : float
        As in `Content`.
    seed : int

    Attributes
    ----------
    vectors_ : NDArray[np.float32] of shape (n_items, n_factors)
        Norm 1; zeros for an item of which nothing is known.

    References
    ----------
    Deerwester et al. 1990, Indexing by latent semantic analysis; Halko, Martinsson and Tropp 2011, Finding structure
    with randomness, algorithm 4.3.
    """

    vectors_: NDArray[np.float32]

    def __init__(self, *, n_factors: int = 64, idf: float = 1.5, vectors: float = 0.5, seed: int = 0) -> None:
        self.n_factors = n_factors
        self.idf = idf
        self.vectors = vectors
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Find the directions; what visitors did is not read, but there must be some. O(terms · n_factors)."""
        content = Content(idf=self.idf, normalise=1.0, vectors=self.vectors).fit(dataset)
        terms = normalize(content.terms_.astype(np.float64))
        n_factors = min(self.n_factors, *terms.shape)
        with threadpool_limits(1):  # sums of other parts round otherwise
            left, strength, _ = randomized_svd(terms, n_factors, random_state=self.seed)
        known = (terms.getnnz(axis=1) > 0)[:, None]
        self.vectors_ = normalize(np.where(known, left * strength, 0.0)).astype(np.float32)
        progress(1.0)
        return self

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return `vectors`, f32 (n_items, n_factors), in clusters where many, as `content_items.safetensors`."""
        return {ITEMS_FILE: clustered(self.fitted("vectors_"), self.seed)}
