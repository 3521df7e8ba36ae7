"""Clusters of item vectors, for shops of so many items that a query should not look at all of them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from trainers.base import Array

LEAST_ITEMS = 1_000_000
"""Items from which on clusters pay: below, all of them are scanned within a few milliseconds."""

_ITEMS_EACH, _SAMPLE_EACH = 250, 50
_BATCH = 8_192


def clustered(vectors: NDArray[np.float32], seed: int) -> Mapping[str, Array]:
    """Return what a file of item vectors holds: the vectors, from `LEAST_ITEMS` on with clusters.

    Parameters
    ----------
    vectors : NDArray[np.float32] of shape (n, width)
        Of one length, for of different ones the longest of far clusters would be missed; zeros where nothing is known.
    seed : int

    Returns
    -------
    Mapping[str, Array]
        `vectors`, and `centres` f32 (c, width) with `clusters` u32 (n,), the place of the centre whose product with the
        item's vector is greatest.

    References
    ----------
    Sculley 2010, Web-scale k-means clustering; Jégou et al. 2011, Product quantization for nearest neighbor search,
    section IV.
    """
    known = np.flatnonzero(vectors.any(axis=1))
    if len(known) < LEAST_ITEMS:
        return {"vectors": vectors}
    rng = np.random.default_rng(seed)
    count = max(len(known) // _ITEMS_EACH, 1)
    sample = vectors[np.sort(rng.permutation(known)[: count * _SAMPLE_EACH])]
    with threadpool_limits(1):  # sums of other parts round otherwise
        means = MiniBatchKMeans(count, init="random", batch_size=_BATCH, max_iter=5, n_init=1, random_state=seed)
        centres = means.fit(sample).cluster_centers_.astype(np.float32)
        lengths = np.linalg.norm(centres, axis=1, keepdims=True)
        centres /= np.maximum(lengths, np.float32(1e-12))
        nearest = [
            (vectors[start : start + _BATCH] @ centres.T).argmax(axis=1) for start in range(0, len(vectors), _BATCH)
        ]
    return {"vectors": vectors, "centres": centres, "clusters": np.concatenate(nearest).astype(np.uint32)}
