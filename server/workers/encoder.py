"""Sequence vectors of visitors, made behind the answers: an event comes, and soon after the bundle's encoder is asked.

An answer never waits for it. Until a vector is there, or where it is late, the other sources fill the slate, and
`degraded` says so.
"""

import threading
import time
from typing import Final

import numpy as np
import structlog

from core_rs import Engine, Histories
from server import telemetry
from server.models import Models

BATCH: Final = 64
"""Visitors that are encoded at once."""

_POLL_S: Final = 0.05
_SLOW_S: Final = 0.25
_LEAST_PAUSE_S: Final = 0.1
_MOST_PAUSE_S: Final = 5.0

_log = structlog.get_logger(__name__)


class EncoderWorker:
    """Thread that encodes the visitors who wait in an engine, in order of coming.

    Parameters
    ----------
    engine : knows who waits and keeps the vectors
    models : run the encoders of bundles
    """

    def __init__(self, engine: Engine, models: Models) -> None:
        self._engine = engine
        self._models = models
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._pause_s = 0.0
        self._told = ""

    def start(self) -> None:
        """Encode from now on."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once whether somebody waits, rather than a little later."""
        self._news.set()

    def stop(self) -> None:
        """Finish the batch in work and end."""
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()

    def drain(self, limit_s: float) -> int:
        """Encode who waits for at most `limit_s` seconds and return how many wait on; to be called before `start`."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end and self._encode():
            pass
        return self._engine.waiting

    def _run(self) -> None:
        while not self._stopping.is_set():
            if self._encode():
                continue
            if self._pause_s:
                self._stopping.wait(self._pause_s)
            else:
                self._news.wait(_POLL_S)
                self._news.clear()

    def _encode(self) -> bool:
        """Encode a batch; return whether there was one and somebody of it got a vector."""
        histories = self._engine.take_histories(BATCH)
        if not len(histories):
            self._pause_s = 0.0
            return False
        started = time.perf_counter()
        try:
            vectors = self._models.encode(histories)
            count = self._engine.set_vectors(histories, vectors)
        except Exception as error:  # noqa: BLE001 - onnxruntime raises classes of its own making
            self._engine.put_back(histories)
            return self._failed(histories, f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - started
        telemetry.ENCODER_BATCH.observe(len(histories))
        telemetry.ENCODER_SECONDS.observe(seconds)
        if not count and not np.isfinite(vectors).all():
            return self._failed(histories, "its vectors are not finite")
        self._pause_s = 0.0
        if seconds > _SLOW_S:
            self._tell("encoder_slow", histories, f"a batch took {seconds:.2f} s")
        elif self._told:
            self._told = ""
            _log.info("encoder_recovered", version=histories.version)
        return True

    def _failed(self, histories: Histories, why: str) -> bool:
        telemetry.ENCODER_FAILURES.inc()
        self._pause_s = min(max(2 * self._pause_s, _LEAST_PAUSE_S), _MOST_PAUSE_S)
        self._tell("encoder_failed", histories, why)
        return False

    def _tell(self, event: str, histories: Histories, why: str) -> None:
        """Write one line when a trouble begins, and none while it lasts."""
        if self._told != event:
            self._told = event
            fix = "activate the bundle before, or train a smaller encoder; visitors keep their last vector meanwhile"
            _log.warning(event, version=histories.version, why=why, fix=fix)
