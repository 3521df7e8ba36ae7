"""Parts of a bundle on request: which there are, and when an encoder is learnt anew."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.walking_shop import walks
from trainers import parts as module
from trainers.__main__ import app
from trainers.lsa_vectors import LsaVectors
from trainers.parts import Parts, left_out, parts_of


class FakeSasRec:
    fits: list[int] = []  # noqa: RUF012 - one list for all of a test

    def __init__(self, *, training, seed):
        self.training = training
        self.seed = seed

    def fit(self, dataset, progress):
        self.fits.append(len(dataset))
        progress(1.0)
        return self


@pytest.fixture
def fits(monkeypatch):
    monkeypatch.setattr(FakeSasRec, "fits", [])
    monkeypatch.setattr(module, "SasRec", FakeSasRec)
    return lambda: FakeSasRec.fits


def test_an_encoder_is_learnt_anew_when_the_events_grew_and_at_last(fits):
    shop = walks()
    parts = Parts(("content", "sequence"), seed=0)
    sizes = [300, 320, 361, 365, 960]
    moments = [shop.where(np.arange(len(shop)) < size) for size in sizes]
    for moment in moments:
        kinds = [type(model) for model in parts.at(moment)]
        assert kinds == [LsaVectors, FakeSasRec]
    assert fits() == [300, 361, 960]
    parts.at(moments[-1], latest=True)
    assert fits() == [300, 361, 960, 960]


def test_it_reads_as_many_events_as_the_engine_remembers(fits):
    (model,) = Parts(("sequence",), seed=3).at(walks())
    assert fits() == [960]
    assert (model.training.window, model.seed) == (16, 3)


def test_where_nobody_came_twice_there_is_no_order_to_learn(fits):
    shop = walks()
    assert Parts(("sequence",), seed=0).at(shop.before(int(shop.time_ms.min()) + 1)) == []
    assert Parts(("content", "sequence"), seed=0).at(shop.before(0)) == []
    assert fits() == []


def test_parts_that_nothing_could_be_learnt_for_are_told():
    models = Parts(("content",), seed=0).at(walks())
    assert left_out(("content", "sequence"), models) == ["sequence"]
    assert left_out(("content",), []) == ["content"]


def test_parts_are_named_and_torch_is_asked_for(monkeypatch):
    assert parts_of("") == ()
    assert parts_of("content,sequence") == ("content", "sequence")
    with pytest.raises(ValueError, match="there is no part images of a bundle; take content or sequence"):
        parts_of("content,images")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert parts_of("content") == ("content",)
    with pytest.raises(
        ValueError, match=r"needs PyTorch; install it with `pip install 'shopkeeper\[torch\]'`, or leave"
    ):
        parts_of("sequence")


def test_the_command_says_which_parts_there_are(tmp_path):
    command = ["train", "--export", str(tmp_path), "--out", str(tmp_path), "--with", "images", "--json"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2
    assert "content or sequence" in json.loads(found.stdout)["error"]
