"""Items by a graph filter: neighbours at two steps, and the smoothest waves over the whole graph."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import linalg

from trainers.base import Progress, no_progress
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender, interactions


class GraphFilter(Recommender):
    """GF-CF: visitors and items as a graph whose edges are damped by both degrees; a history spreads over it.

    A linear filter goes two steps, to the neighbours of the history's items; an ideal low pass keeps the waves of the
    largest singular values, what items have in common across the whole shop.

    Parameters
    ----------
    n_factors : int
        Waves that the low pass keeps; fewer where the shop has fewer items or visitors.
    low_pass : float
        The paper's alpha: weight of the low pass beside 1 of the neighbours.
    damping : float
        Exponent by which the degrees divide an edge.
    seed : int
        Draws where the search for waves begins.

    Attributes
    ----------
    near_ : scipy.sparse.csr_matrix of shape (n_items, n_items)
    waves_ : NDArray[np.float32] of shape (n_items, n_factors)
        Orthonormal columns.
    degree_ : NDArray[np.float32] of shape (n_items,)
        Visitors of each item to the power `damping`, at least 1.

    References
    ----------
    Shen, Wu, Zhang, Shan, Zhang, Letaief and Li 2021, How powerful is graph convolution for recommendation?, section 4.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = GraphFilter(n_factors=2).fit(toy()).recommend(question("milk"), k=2)
    >>> names(items)
    [['milk', 'coffee']]
    """

    near_: sparse.csr_matrix
    waves_: NDArray[np.float32]
    degree_: NDArray[np.float32]

    def __init__(self, *, n_factors: int = 32, low_pass: float = 0.1, damping: float = 0.5, seed: int = 0) -> None:
        self.n_factors = n_factors
        self.low_pass = low_pass
        self.damping = damping
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Count and decompose. O(sum over visitors of items² + rows * n_factors)."""
        table = interactions(dataset).astype(np.float64)
        of_visitors, of_items = (np.maximum(np.asarray(table.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
        damped = sparse.diags(of_visitors**-self.damping) @ table @ sparse.diags(of_items**-self.damping)
        progress(0.3)
        self.near_ = (damped.T @ damped).astype(np.float32).tocsr()
        self.waves_ = self._waves(damped)
        self.degree_ = (of_items**self.damping).astype(np.float32)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return what reaches each item from the history's items, each counted once."""
        history = sparse.csr_matrix(queries.matrix().sign(), dtype=np.float32)
        near = (history @ self.fitted("near_")).toarray()
        spread = history @ (self.waves_ / self.degree_[:, None])
        # One product a history, as in `Als.score`.
        smooth = np.array([self.waves_ @ wave for wave in spread], np.float32).reshape(near.shape)
        return np.asarray(near + np.float32(self.low_pass) * smooth * self.degree_, np.float32)

    def _waves(self, damped: sparse.csr_matrix) -> NDArray[np.float32]:
        width = min(self.n_factors, min(damped.shape) - 1)
        if width < 1:
            return np.zeros((damped.shape[1], 0), np.float32)
        start = np.random.default_rng(self.seed).random(min(damped.shape))
        _, _, waves = linalg.svds(damped, k=width, v0=start)
        return np.ascontiguousarray(waves.T, np.float32)
