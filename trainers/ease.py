"""Items by linear regression on all other items, in closed form."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from trainers.base import Progress, no_progress
from trainers.dataset import Dataset
from trainers.recommender import Queries, Recommender, interactions

_MATRICES = 3
"""Dense matrices, items by items, that the closed form holds at once."""
_TOLD = 500
"""Items between two reports of progress."""


class Ease(Recommender):
    """EASE: each item regressed on all others, ridge, nothing on itself.

    Where the dense form does not fit into `memory_mib`, each item is regressed on the `block` items it occurs with
    most often; their weights are kept, others are 0.

    Parameters
    ----------
    regularization : float
        λ: ridge, in rows; positive.
    memory_mib : int
        Most memory of the dense form, 12 bytes for each pair of items (20,000 items: 4,578 MiB).
    block : int
        Items that one is regressed on in the blocked form.
    decay : float
        Weight of a step of a history that is scored relative to the next; 1 ignores the order.

    Attributes
    ----------
    weights_ : scipy.sparse.csr_matrix or NDArray[np.float32] of shape (n_items, n_items)
        Row: item of the history; column: item that is scored.

    References
    ----------
    Steck 2019, Embarrassingly shallow autoencoders for sparse data, equations 7 and 8.
    Ning and Karypis 2011, SLIM: sparse linear methods for top-n recommender systems, for the choice of items before
    the regression (fsSLIM), as in the blocked form.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Ease(regularization=1.0).fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['butter', 'jam']]
    """

    weights_: NDArray[np.float32] | sparse.csr_matrix

    def __init__(
        self,
        *,
        regularization: float = 500.0,
        memory_mib: int = 4600,
        block: int = 150,
        decay: float = 1.0,
    ) -> None:
        self.regularization = regularization
        self.memory_mib = memory_mib
        self.block = block
        self.decay = decay

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Solve. O(items³) in the dense form, less with few visitors, O(items * block³) in the blocked one."""
        if not self.regularization > 0:
            raise ValueError(f"regularization is {self.regularization}; give a positive number of rows")
        table = interactions(dataset)
        dense_mib = _MATRICES * 4 * dataset.n_items**2 / 2**20
        if dense_mib > self.memory_mib:
            self.weights_ = self._blocked((table.T @ table).tocsr(), progress)
        elif 2 * dataset.n_visitors < dataset.n_items:
            self.weights_ = self._among_visitors(table)
        else:
            self.weights_ = self._dense(table.T @ table)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the sum of the weights of the history's items, by recency where `decay` is below 1."""
        weights = self.fitted("weights_")
        recency = queries.matrix(queries.recency(self.decay, len(queries.item) + 1))
        if self.decay == 1:
            recency.data[:] = 1
        scores = recency @ weights
        return np.asarray(scores.toarray() if sparse.issparse(scores) else scores, np.float32)

    def _dense(self, gram: sparse.csr_matrix) -> NDArray[np.float32]:
        full = gram.toarray()
        full[np.diag_indices_from(full)] += self.regularization
        factor, fault = linalg.lapack.spotrf(full.T, overwrite_a=1, clean=0)
        inverse, lost = linalg.lapack.spotri(factor, overwrite_c=1)
        if fault or lost:
            raise ValueError(f"the items' table is singular at regularization {self.regularization}; give a larger one")
        inverse = np.triu(inverse) + np.triu(inverse, 1).T
        weights = inverse / -np.diag(inverse)
        weights[np.diag_indices_from(weights)] = 0
        return np.ascontiguousarray(weights, np.float32)

    def _among_visitors(self, table: sparse.csr_matrix) -> NDArray[np.float32]:
        """Return the dense form by the inverse of a table of visitors in place of items, by Woodbury's identity."""
        alike = (table @ table.T).toarray()
        alike[np.diag_indices_from(alike)] += self.regularization
        weights = table.T @ (table.T @ linalg.inv(alike, overwrite_a=True)).T
        weights /= 1 - np.diag(weights)
        weights[np.diag_indices_from(weights)] = 0
        return np.ascontiguousarray(weights, np.float32)

    def _blocked(self, gram: sparse.csr_matrix, progress: Progress) -> sparse.csr_matrix:
        n_items = gram.shape[0]
        items = np.repeat(np.arange(n_items), np.diff(gram.indptr))
        order = np.lexsort((-gram.data, items))
        column, row, value = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for item in range(n_items):
            around = order[gram.indptr[item] : gram.indptr[item + 1]]
            chosen = around[gram.indices[around] != item][: self.block]
            near = gram.indices[chosen]
            if len(near):
                square = gram[near][:, near].toarray()
                square[np.diag_indices_from(square)] += self.regularization
                column.append(np.full(len(near), item))
                row.append(near)
                value.append(linalg.solve(square, gram.data[chosen], assume_a="pos"))
            if item % _TOLD == 0:
                progress(item / n_items)
        parts = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
        return sparse.csr_matrix(parts, shape=gram.shape, dtype=np.float32)
