"""Bundles in a process: loaded before they are active, let go when no longer needed, missing ones said."""

import numpy as np
import pytest
from structlog.testing import capture_logs

from server.errors import ServiceError
from server.models import Models
from server.ports import LogRecord
from shopkeeper.v1.model_service_pb2 import Trial
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, RECORD_KIND_EVENT, Activation

FEATURES = np.zeros((1, 2), np.float32)


class FakeEngine:
    active_model = previous_model = ""
    trial = b""

    def __init__(self):
        self.loaded = []

    def load_bundle(self, folder):
        self.loaded.append(folder.rpartition("/")[2])

    def unload_bundle(self, version):
        self.loaded.remove(version)


class FakeStore:
    def __init__(self, folder):
        self.folder = folder

    def folder_of(self, version):
        return self.folder / version

    def verified_file(self, version, _name):
        if version == "rotten":
            raise ServiceError("CHECKSUM_MISMATCH", "damaged")


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def models(engine, tmp_path):
    return Models(engine, FakeStore(tmp_path))


def record(kind, payload):
    return LogRecord(1, kind, 0, "", "", payload)


def test_an_activation_loads_its_bundle_first(engine, models):
    models.before_apply(record(RECORD_KIND_EVENT, b"anything"))
    assert engine.loaded == []
    models.before_apply(record(RECORD_KIND_ACTIVATION, Activation(version="one").SerializeToString()))
    models.load("one")
    assert engine.loaded == ["one"]


def test_a_bundle_that_cannot_be_loaded_leaves_rules_and_a_line(engine, models):
    with capture_logs() as lines:
        models.before_apply(record(RECORD_KIND_ACTIVATION, Activation(version="rotten").SerializeToString()))
    assert lines[0]["version"] == "rotten"
    assert engine.loaded == []
    assert models.score("rotten", FEATURES) == (None, "model_missing")


def test_the_active_bundle_the_one_before_and_the_next_are_kept(engine, models):
    for version, active, previous in (("a", "", ""), ("b", "a", ""), ("c", "b", "a"), ("d", "c", "b")):
        engine.active_model, engine.previous_model = active, previous
        models.load(version)
    assert sorted(engine.loaded) == ["b", "c", "d"]


def test_the_bundle_on_trial_is_loaded_by_its_activation_and_kept(engine, models):
    engine.active_model = "a"
    activation = Activation(version="a", trial=Trial(version="t"))
    models.before_apply(record(RECORD_KIND_ACTIVATION, activation.SerializeToString()))
    engine.trial = activation.trial.SerializeToString()
    models.load("next")
    assert sorted(engine.loaded) == ["a", "next", "t"]


def test_rules_rank_without_a_version(models):
    assert models.score("", FEATURES) == (None, "")
