"""Figures on public data, which no clone carries: read from the folder that SHOPKEEPER_REFERENCE names."""

import os
from pathlib import Path

import pytest

from trainers.ease import Ease
from trainers.item_to_item import ItemKnn
from trainers.offline import protocols
from trainers.offline.baselines import MostPopular
from trainers.offline.measures import accuracy
from trainers.offline.readers import read_attributes
from trainers.offline.recipes import recipes_of

FOLDER = os.environ.get("SHOPKEEPER_REFERENCE", "")
DATA = Path(FOLDER) / "data"

pytestmark = pytest.mark.skipif(not FOLDER, reason="SHOPKEEPER_REFERENCE is not set: the public data are not here")


def figures(model, split, *names):
    found = accuracy(model.fit(split.train), split.test, filter_seen=split.filter_seen)
    return [found[name] for name in names]


def test_rules_and_their_order_on_beauty():
    directed, undirected = [], []
    for name in ("Beauty.txt.gz", "tie_reordered_inter.json.gz"):
        split = protocols.leave_one_out(DATA / "beauty" / name)
        assert (len(split.test), split.train.n_items, split.left_out) == (22_363, 12_101, 0)
        recipe = recipes_of("loo")["sequential-rules"]
        for backward, found in ((0.1, directed), (1.0, undirected)):
            found.append(figures(recipe.make(**{**recipe.settings, "backward": backward}), split, "R@10", "N@10"))
    assert directed[0] == pytest.approx([0.0860, 0.0539], abs=0.0005)
    assert directed[0] > undirected[0]
    assert undirected[1] > directed[1]


def test_neighbours_and_content_on_beauty():
    known = read_attributes(DATA / "beauty/Beauty_item2attributes.json.gz")
    split = protocols.leave_one_out(DATA / "beauty/Beauty.txt.gz", known)
    recipes = recipes_of("loo", with_content=True)
    near, content = (recipes[name].make(**recipes[name].settings) for name in ("user-kNN", "content"))
    assert figures(near, split, "R@10", "N@10") == pytest.approx([0.0864, 0.0546], abs=0.0005)
    recall, ndcg = figures(content, split, "R@10", "N@10")
    assert recall > 0.0422
    assert ndcg > 0.0219


def test_closed_forms_on_sets():
    split = protocols.sets(DATA / "electronics/train.txt.gz", DATA / "electronics/test.txt.gz")
    assert figures(Ease(regularization=100.0), split, "F1@20", "N@20") == pytest.approx([0.0325, 0.0823], abs=0.0005)
    assert figures(MostPopular(), split, "F1@20", "N@20") == pytest.approx([0.0207, 0.0487], abs=0.001)
    assert figures(ItemKnn(window=10_000), split, "F1@20")[0] > 0.030
