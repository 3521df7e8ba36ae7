"""Vectors that the shop has of its items, e.g. of their images, or that a packaged model makes of their titles."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.preprocessing import normalize

from trainers.dataset import Dataset
from trainers.offline.files import ReadError

TITLES = "titles"
"""What names the vectors of titles where else stands a file."""

_COLUMNS = ("item_id", "vector")
_HOW_TO_INSTALL = "vectors of titles need the extra `text`; install it with `pip install 'shopkeeper[text]'`"


class MissingModelError(ValueError):
    """Titles were to become vectors where no model of sentences is installed."""


def with_vectors(dataset: Dataset, source: str) -> Dataset:
    """Return the data set with `catalogue.vectors`, NaN where nothing is known.

    Parameters
    ----------
    dataset : Dataset
    source : str
        `titles`, or a Parquet file with item_id and vector, lists of one width; what it says of other items is passed
        over.

    Raises
    ------
    ReadError
        When the file cannot be read or does not hold that; the text names file, item and remedy.
    MissingModelError
        When titles are wanted and the extra `text` is not installed.
    """
    vectors = of_titles(dataset.catalogue.titles) if source == TITLES else _of_file(dataset.items, Path(source))
    return replace(dataset, catalogue=replace(dataset.catalogue, vectors=vectors))


def of_titles(titles: list[str]) -> NDArray[np.float32]:
    """Return the mean vector of the words of each title, of norm 1, zeros for an empty one; shape (n, 256).

    References
    ----------
    Miller 2024, WordLlama: recycled token embeddings from large language models.
    """
    if importlib.util.find_spec("wordllama") is None:
        raise MissingModelError(_HOW_TO_INSTALL)
    import wordllama  # noqa: PLC0415 - an extra

    packaged = Path(wordllama.__file__).parent
    model = wordllama.WordLlama.load(cache_dir=packaged, disable_download=True)
    vectors: NDArray[np.float32] = normalize(np.asarray(model.embed(titles, norm=False), np.float32))
    return vectors


def _of_file(items: list[str], path: Path) -> NDArray[np.float32]:
    known = _read(path)
    widths = known["vector"].list.len().unique().to_list()
    if len(widths) > 1 or not widths[0]:
        raise ReadError(path, None, f"has vectors of {sorted(widths)} numbers", "give every item one of the same width")
    numbers = known["vector"].explode().to_numpy()
    if not np.isfinite(numbers).all():
        item = known["item_id"][int(np.flatnonzero(~np.isfinite(numbers))[0]) // widths[0]]
        raise ReadError(path, None, f"has a vector of `{item}` with what is no number", "leave the item out")
    vectors = np.full((len(items), *widths), np.nan, np.float32)
    wanted = pl.DataFrame({"item_id": items}).with_row_index("row").join(known, on="item_id")
    if wanted.is_empty():
        raise ReadError(path, None, f"has a vector of none of the {len(items):,} items", "write the catalogue's ids")
    vectors[wanted["row"].to_numpy()] = wanted["vector"].explode().to_numpy().reshape(-1, *widths)
    return vectors


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ReadError(path, None, f"is no Parquet file that can be read ({error})", "check the path") from error
    if missing := [name for name in _COLUMNS if name not in frame.columns]:
        raise ReadError(path, None, f"has no column {missing[0]}", f"write the columns {' and '.join(_COLUMNS)}")
    try:
        frame = frame.select(pl.col("item_id").cast(pl.String), pl.col("vector").cast(pl.List(pl.Float32))).drop_nulls()
    except pl.exceptions.PolarsError as error:
        raise ReadError(path, None, f"has a vector that is no list of numbers ({error})", "write lists") from error
    if frame.is_empty():
        raise ReadError(path, None, "has no vector", "write one line for each item")
    if frame["item_id"].is_duplicated().any():
        twice = frame.filter(pl.col("item_id").is_duplicated())["item_id"][0]
        raise ReadError(path, None, f"has the item `{twice}` twice", "write one line for each item")
    return frame
