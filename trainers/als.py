"""Factors of visitors and items by alternating least squares on implicit feedback."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

import core_rs
from trainers.base import Progress, no_progress
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender, interactions

_FOLD_IN_STEPS = 12


class Als(Recommender):
    """iALS: a history's factors are those that best explain which items it holds; items score by inner product.

    Parameters
    ----------
    n_factors : int
        d: length of the factors.
    unobserved : float
        α₀: weight of every pair of a history and an item; one that is observed weighs 1 + α₀.
    regularization : float
        λ: weight of the squared length of factors.
    scaling : float
        The paper's nu: exponent of a row's size in its regularization, 0 to 1.
    n_iterations : int
        Turns of visitors, then items.
    seed : int
        Draws the first factors.

    Attributes
    ----------
    factors_ : NDArray[np.float32] of shape (n_items, n_factors)

    References
    ----------
    Hu, Koren and Volinsky 2008, Collaborative filtering for implicit feedback datasets.
    Rendle, Krichene, Zhang and Koren 2021, Revisiting the performance of iALS on item recommendation benchmarks,
    equations 1 to 5.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Als(n_factors=4).fit(toy()).recommend(question("bread"), k=3)
    >>> names(items)
    [['bread', 'butter', 'jam']]
    """

    factors_: NDArray[np.float32]

    def __init__(  # noqa: PLR0913 - keyword hyper-parameters
        self,
        *,
        n_factors: int = 128,
        unobserved: float = 0.1,
        regularization: float = 0.01,
        scaling: float = 1.0,
        n_iterations: int = 12,
        seed: int = 0,
    ) -> None:
        self.n_factors = n_factors
        self.unobserved = unobserved
        self.regularization = regularization
        self.scaling = scaling
        self.n_iterations = n_iterations
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Alternate. O(n_iterations * ((visitors + items) * n_factors² + rows * n_factors))."""
        table = interactions(dataset)
        turned = table.T.tocsr()
        random = np.random.default_rng(self.seed)
        deviation = 0.1 / np.sqrt(self.n_factors)
        self.factors_ = random.normal(0, deviation, (dataset.n_items, self.n_factors)).astype(np.float32)
        visitors = np.zeros((dataset.n_visitors, self.n_factors), np.float32)
        for iteration in range(self.n_iterations):
            self._solve(table, self.factors_, visitors)
            self._solve(turned, visitors, self.factors_)
            progress((iteration + 1) / self.n_iterations)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the inner products with the factors that explain each history best."""
        factors = self.fitted("factors_")
        histories = np.zeros((len(queries), self.n_factors), np.float32)
        self._solve(queries.matrix(), factors, histories, steps=_FOLD_IN_STEPS)
        # One product a history: products of many sum in another order, and a score would depend on the batch.
        return np.asarray([factors @ history for history in histories], np.float32).reshape(len(queries), len(factors))

    def _solve(
        self, table: sparse.csr_matrix, fixed: NDArray[np.float32], rows: NDArray[np.float32], steps: int = 3
    ) -> None:
        core_rs.als_half_sweep(
            table.indptr.astype(np.int64),
            table.indices.astype(np.uint32),
            fixed,
            rows,
            unobserved=self.unobserved,
            regularisation=self.regularization,
            scaling=self.scaling,
            steps=steps,
        )
