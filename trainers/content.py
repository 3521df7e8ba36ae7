"""Items that are like those of a history by what the shop says about them."""

from collections.abc import Mapping
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

from trainers.base import Array, Progress, no_progress, rows_of
from trainers.dataset import Catalogue, Dataset
from trainers.recommender import Queries, Recommender


class Content(Recommender):
    """Cosine of words, categories and brand by tf-idf, and of the shop's item vectors, times log popularity.

    A category counts with its path, so that near branches of the tree are alike. An item of which nothing is known is
    like no other.

    Parameters
    ----------
    popularity : float
        Exponent of ln(1 + rows of the item), which multiplies the cosine; at 0 items that nobody met score as well.
    vectors : float
        Share of the item vectors in the cosine, 0 to 1, where the catalogue has any.
    decay : float
        Weight of a step of the history relative to the next.
    length : int
        Steps of the history that count, newest first.
    seed : int
        Counting has no chance in it; kept so that every trainer has one.

    Attributes
    ----------
    terms_ : scipy.sparse.csr_matrix of shape (n_items, n_terms + width of the vectors)
        Rows of length 1, or 0 where nothing is known.
    factor_ : NDArray[np.float32] of shape (n_items,)
        Rows of the item, plus 1, as a logarithm.

    References
    ----------
    Salton and Buckley 1988, Term-weighting approaches in automatic text retrieval.
    """

    terms_: sparse.csr_matrix
    factor_: NDArray[np.float32]

    def __init__(
        self, *, popularity: float = 1.0, vectors: float = 0.5, decay: float = 0.8, length: int = 20, seed: int = 0
    ) -> None:
        self.popularity = popularity
        self.vectors = vectors
        self.decay = decay
        self.length = length
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Weigh the terms of the catalogue. O(terms)."""
        rows = rows_of(dataset)
        texts = [" ".join(words) for words in map(words_of, *_columns(dataset.catalogue))]
        parts = []
        if any(texts):
            parts.append(TfidfVectorizer(analyzer=str.split, dtype=np.float32).fit_transform(texts))
        given = dataset.catalogue.vectors
        if given is not None:
            shares = np.sqrt([1 - self.vectors, self.vectors]) if parts else np.ones(2)
            parts = [part * shares[0] for part in parts]
            parts.append(sparse.csr_matrix(normalize(np.nan_to_num(given)) * shares[1]))
        empty = sparse.csr_matrix((dataset.n_items, 1), dtype=np.float32)
        self.terms_ = normalize(sparse.hstack(parts or [empty], format="csr", dtype=np.float32))
        self.factor_ = np.log1p(np.bincount(rows.item, minlength=dataset.n_items)).astype(np.float32)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the weighed sum of cosines with the history's items, times popularity."""
        profile = queries.matrix(queries.recency(self.decay, self.length)) @ self.fitted("terms_")
        return np.asarray((profile @ self.terms_.T).toarray() * self.factor_**self.popularity, np.float32)

    def tensors(self) -> Mapping[str, Mapping[str, Array]]:
        """Return terms by CSR and popularity, as `content.safetensors`."""
        terms = self.fitted("terms_")
        parts = {"offsets": terms.indptr, "terms": terms.indices, "weights": terms.data, "popularity": self.factor_}
        return {"content.safetensors": parts}


def words_of(title: str, path: tuple[str, ...], brand: str) -> list[str]:
    """Return the terms of an item: words, every node of its category path with the way there, and brand.

    >>> words_of("Red  Shoes", ("shop", "shoes"), "Acme")
    ['red', 'shoes', 'category:shop', 'category:shop/shoes', 'brand:acme']
    """
    nodes = ["category:" + "/".join(path[: depth + 1]).replace(" ", "_") for depth in range(len(path))]
    return [*title.lower().split(), *nodes, *([f"brand:{brand.lower().replace(' ', '_')}"] if brand else [])]


def _columns(catalogue: Catalogue) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    return catalogue.titles, catalogue.category_paths, catalogue.brands
