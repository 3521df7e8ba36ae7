"""Vectors that the shop gives of its items, or that are made of titles: each at its item, faults told with a remedy."""

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from trainers import item_vectors as module
from trainers.__main__ import app
from trainers.dataset import Dataset
from trainers.item_vectors import MissingModelError, of_titles, with_vectors
from trainers.lsa_vectors import LsaVectors
from trainers.offline.files import ReadError

TITLES = ["red wine", "white wine", "dog food", "cat food", None]


@pytest.fixture
def shop():
    items = pl.DataFrame({"item_id": list("abcde"), "title": TITLES})
    event = {"event_id": ["e"], "visitor_id": ["v"], "item_id": ["a"], "event_type": ["view"], "time_ms": [1]}
    return Dataset.from_frames(pl.DataFrame(event), items)


@pytest.fixture
def written(tmp_path):
    def write(**columns):
        path = tmp_path / "vectors.parquet"
        pl.DataFrame(columns).write_parquet(path)
        return str(path)

    return write


def test_vectors_of_a_file_come_to_their_items(shop, written):
    path = written(item_id=["c", "gone", "a"], vector=[[3.0, 4.0], [9.0, 9.0], [1.0, 2.0]])
    found = with_vectors(shop, path).catalogue.vectors
    expected = [[1, 2], [np.nan, np.nan], [3, 4], [np.nan, np.nan], [np.nan, np.nan]]
    np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_they_say_how_alike_items_are(shop, written):
    path = written(item_id=list("abc"), vector=[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    likeness = LsaVectors(vectors=0.9).fit(with_vectors(shop, path)).vectors_
    assert likeness[0] @ likeness[2] > 0.7 > likeness[0] @ likeness[1]


def test_titles_of_like_meaning_are_near_and_an_empty_one_nowhere(shop):
    found = with_vectors(shop, "titles").catalogue.vectors
    likeness = found @ found.T
    assert min(likeness[0, 1], likeness[2, 3]) > max(likeness[0, 2], likeness[1, 3]) + 0.2
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 1, 1, 0], atol=1e-6)
    np.testing.assert_array_equal(found, of_titles([title or "" for title in TITLES]))


def test_without_the_extra_it_says_how_to_install_it(shop, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingModelError, match=r"shopkeeper\[text\]"):
        with_vectors(shop, "titles")


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"item": ["a"], "vector": [[1.0]]}, "has no column item_id"),
        ({"item_id": ["a"], "vector": ["far"]}, "no list of numbers"),
        ({"item_id": ["a", "a"], "vector": [[1.0], [2.0]]}, "has the item `a` twice"),
        ({"item_id": ["a", "b"], "vector": [[1.0], [2.0, 3.0]]}, r"vectors of \[1, 2\] numbers"),
        ({"item_id": ["a"], "vector": [pl.Series([], dtype=pl.Float32)]}, r"vectors of \[0\] numbers"),
        ({"item_id": ["a", "b"], "vector": [[1.0, 2.0], [1.0, np.nan]]}, "vector of `b` with what is no number"),
        ({"item_id": ["x"], "vector": [[1.0, 2.0]]}, "a vector of none of the 5 items"),
        ({"item_id": ["a"], "vector": pl.Series([None], dtype=pl.List(pl.Float32))}, "has no vector"),
    ],
)
def test_a_bad_file_is_told_by_name_with_a_remedy(shop, written, columns, fault):
    path = written(**columns)
    with pytest.raises(ReadError, match=fault) as caught:
        with_vectors(shop, path)
    assert str(caught.value).startswith(path)


def test_a_file_that_is_none_is_told(shop, tmp_path):
    (tmp_path / "v.parquet").write_text("a,b\n")
    with pytest.raises(ReadError, match="no Parquet file"):
        with_vectors(shop, str(tmp_path / "v.parquet"))


def test_vectors_that_no_part_reads_are_refused(tmp_path):
    ran = CliRunner().invoke(
        app, ["train", "--export", str(tmp_path), "--out", str(tmp_path), "--item-vectors", "titles"]
    )
    assert ran.exit_code == 2
    assert "add `--with content`" in ran.stderr
