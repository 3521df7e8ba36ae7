"""Items that are like those of a history by what the shop says about them."""

from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

from trainers.base import Progress, no_progress, rows_of
from trainers.dataset import Catalogue, Dataset
from trainers.recommender import Queries, Recommender


class Content(Recommender):
    """Words, categories and brand in common by tf-idf, and likeness of the shop's item vectors, times log popularity.

    A category counts with its path, so that near branches of the tree are alike. An item of which nothing is known is
    like no other.

    Parameters
    ----------
    idf : float
        Exponent of ln(items / items with the term), a term's weight in both items.
    normalise : float
        Exponent of the length of an item's terms that divides them: 1 is the cosine; at 0 a well described item has
        more to offer.
    popularity : float
        Exponent of ln(1 + rows of the item), which multiplies the likeness; at 0 items that nobody met score as well.
    vectors : float
        Share of the item vectors in the likeness, 0 to 1, where the catalogue has any.
    decay : float
        Weight of a step of the history relative to the next.
    window : int
        Steps of the history that count, newest first.

    Attributes
    ----------
    terms_ : scipy.sparse.csr_matrix of shape (n_items, n_terms + width of the vectors)
        All 0 where nothing is known.
    factor_ : NDArray[np.float32] of shape (n_items,)
        Rows of the item, plus 1, as a logarithm.

    References
    ----------
    Salton and Buckley 1988, Term-weighting approaches in automatic text retrieval.

    Examples
    --------
    >>> from trainers.toy import names, question, toy
    >>> items, _ = Content().fit(toy()).recommend(question("bread"), k=2)
    >>> names(items)
    [['bread', 'jam']]
    """

    terms_: sparse.csr_matrix
    factor_: NDArray[np.float32]

    def __init__(  # noqa: PLR0913 - keyword hyper-parameters
        self,
        *,
        idf: float = 1.5,
        normalise: float = 0.0,
        popularity: float = 1.0,
        vectors: float = 0.5,
        decay: float = 0.6,
        window: int = 20,
    ) -> None:
        self.idf = idf
        self.normalise = normalise
        self.popularity = popularity
        self.vectors = vectors
        self.decay = decay
        self.window = window

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        """Weigh the terms of the catalogue. O(terms)."""
        rows = rows_of(dataset)
        parts = []
        texts = [" ".join(words) for words in map(words_of, *_columns(dataset.catalogue))]
        if any(texts):
            parts.append(self._weighed(CountVectorizer(analyzer=str.split, binary=True).fit_transform(texts)))
        given = dataset.catalogue.vectors
        if given is not None:
            parts.append(sparse.csr_matrix(normalize(np.nan_to_num(given))))
        if len(parts) > 1:
            longest = np.sqrt(parts[0].multiply(parts[0]).sum(axis=1).max())
            parts = [parts[0] * np.sqrt(1 - self.vectors), parts[1] * (longest * np.sqrt(self.vectors))]
        empty = sparse.csr_matrix((dataset.n_items, 1), dtype=np.float32)
        self.terms_ = sparse.hstack(parts or [empty], format="csr", dtype=np.float32)
        self.factor_ = np.log1p(np.bincount(rows.item, minlength=dataset.n_items)).astype(np.float32)
        progress(1.0)
        return self

    def score(self, queries: Queries) -> NDArray[np.float32]:
        """Return the weighed sum of likeness with the history's items, times popularity."""
        profile = queries.matrix(queries.recency(self.decay, self.window)) @ self.fitted("terms_")
        return np.asarray((profile @ self.terms_.T).toarray() * self.factor_**self.popularity, np.float32)

    def _weighed(self, terms: sparse.csr_matrix) -> sparse.csr_matrix:
        items, count = terms.shape[0], np.bincount(terms.indices, minlength=terms.shape[1])
        weighed = terms.astype(np.float64) @ sparse.diags(np.log(items / np.maximum(count, 1)) ** self.idf)
        length = np.sqrt(np.asarray(weighed.multiply(weighed).sum(axis=1)).ravel())
        return sparse.diags(np.maximum(length, 1e-12) ** -self.normalise) @ weighed


def words_of(title: str, path: tuple[str, ...], brand: str) -> list[str]:
    """Return the terms of an item: words, every node of its category path with the way there, and brand.

    >>> words_of("Red  Shoes", ("shop", "shoes"), "Acme")
    ['red', 'shoes', 'category:shop', 'category:shop/shoes', 'brand:acme']
    """
    nodes = ["category:" + "/".join(path[: depth + 1]).replace(" ", "_") for depth in range(len(path))]
    return [*title.lower().split(), *nodes, *([f"brand:{brand.lower().replace(' ', '_')}"] if brand else [])]


def _columns(catalogue: Catalogue) -> tuple[list[str], list[tuple[str, ...]], list[str]]:
    return catalogue.titles, catalogue.category_paths, catalogue.brands
