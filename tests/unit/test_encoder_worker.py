"""The worker that encodes: it wakes, works in batches, and a trouble is told once and stops nothing."""

import time

import numpy as np
import pytest
from structlog.testing import capture_logs

from server import telemetry
from server.workers import encoder as module
from server.workers.encoder import BATCH, EncoderWorker
from tests.table_shop import wait_until

WIDTH = 2


class FakeHistories:
    version = "one"

    def __init__(self, visitors):
        self.visitors = visitors

    def __len__(self):
        return len(self.visitors)


class FakeEngine:
    def __init__(self):
        self.queue = []
        self.batches = []
        self.done = []

    @property
    def waiting(self):
        return len(self.queue)

    def take_histories(self, count):
        taken, self.queue = self.queue[:count], self.queue[count:]
        return FakeHistories(taken)

    def set_vectors(self, histories, vectors):
        self.batches.append(len(histories))
        good = np.isfinite(vectors).all(axis=1)
        self.done += [visitor for visitor, is_good in zip(histories.visitors, good, strict=True) if is_good]
        self.queue += [visitor for visitor, is_good in zip(histories.visitors, good, strict=True) if not is_good]
        return int(good.sum())

    def put_back(self, histories):
        self.queue += histories.visitors


class FakeModels:
    """Answers ones, or does what `trouble` says."""

    trouble = None

    def encode(self, histories):
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if isinstance(self.trouble, float):
            time.sleep(self.trouble)
        value = np.nan if self.trouble == "nan" else 1.0
        return np.full((len(histories), WIDTH), value, np.float32)


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def models():
    return FakeModels()


@pytest.fixture
def worker(engine, models, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "_MOST_PAUSE_S", 0.01)
    worker = EncoderWorker(engine, models)
    yield worker
    worker.stop()


def value_of(metric):
    return metric.collect()[0].samples[0].value


def test_who_waits_is_encoded_in_batches_soon_after_the_news(worker, engine):
    worker.start()
    before = telemetry.ENCODER_BATCH._sum.get()
    engine.queue += range(BATCH + 3)
    worker.wake()
    wait_until(lambda: len(engine.done) == BATCH + 3)
    assert max(engine.batches) <= BATCH
    wait_until(lambda: telemetry.ENCODER_BATCH._sum.get() == before + BATCH + 3)


def test_it_looks_by_itself_too(worker, engine):
    worker.start()
    engine.queue.append("v")
    wait_until(lambda: engine.done == ["v"])


@pytest.mark.parametrize("trouble", [RuntimeError("broken"), "nan"])
def test_a_failure_is_told_once_and_tried_again(worker, engine, models, trouble):
    models.trouble = trouble
    engine.queue += ["a", "b"]
    failures = value_of(telemetry.ENCODER_FAILURES)
    with capture_logs() as lines:
        worker.start()
        wait_until(lambda: value_of(telemetry.ENCODER_FAILURES) >= failures + 4)
        assert engine.done == []
        models.trouble = None
        wait_until(lambda: sorted(engine.done) == ["a", "b"])
        worker.stop()
    assert [line["event"] for line in lines] == ["encoder_failed", "encoder_recovered"]
    assert "activate the bundle before" in lines[0]["fix"]
    assert lines[0]["version"] == "one"


def test_a_pause_grows_with_every_failure_and_has_an_end(worker, engine, models):
    models.trouble = RuntimeError("broken")
    engine.queue.append("a")
    pauses = []
    for _ in range(8):
        assert not worker._encode()
        pauses.append(worker._pause_s)
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.008]
    assert pauses[-1] == 0.01


def test_a_slow_encoder_is_told_once_and_works_on(worker, engine, monkeypatch):
    monkeypatch.setattr(module, "_SLOW_S", 0.0)
    engine.queue += range(2 * BATCH)
    with capture_logs() as lines:
        assert worker.drain(5.0) == 0
    assert [line["event"] for line in lines] == ["encoder_slow"]
    assert len(engine.done) == 2 * BATCH


def test_draining_has_an_end(worker, engine, models):
    models.trouble = 0.02
    engine.queue += range(100 * BATCH)
    started = time.monotonic()
    assert worker.drain(0.1) > 0
    assert time.monotonic() - started < 1
    models.trouble = RuntimeError("broken")
    assert worker.drain(5.0) > 0
