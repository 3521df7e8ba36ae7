"""The bundles in this process: what the engine reads of them, their ranking models and their encoders."""

import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnxruntime as ort
import structlog
from numpy.typing import NDArray

from core_rs import Answer, Engine, EngineError, Histories, Plan
from server.bundles import BundleStore
from server.errors import ServiceError
from server.ports import LogRecord
from server.ranker import RANKER_FILE, Ranker, open_session
from shopkeeper.v1.model_service_pb2 import Trial
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, Activation

ENCODER_FILE: Final = "sequence.onnx"

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Loaded:
    """What this process runs of a bundle."""

    ranker: Ranker | None
    encoder: ort.InferenceSession | None


class Models:
    """Loaded bundles of one replica: the active one, the one before, one on trial, and one about to be activated.

    Parameters
    ----------
    engine : keeps the neighbour and visitor lists
    store : where bundles lie
    """

    def __init__(self, engine: Engine, store: BundleStore) -> None:
        self._engine = engine
        self._store = store
        self._loading = threading.Lock()
        self._loaded: dict[str, _Loaded] = {}

    def load(self, version: str) -> None:
        """Make a published bundle ready to serve, and let go of those no longer needed; a repeat does nothing.

        Raises
        ------
        ServiceError : MODEL_NOT_FOUND, CHECKSUM_MISMATCH, BUNDLE_REJECTED
        EngineError : the bundle does not fit the engine
        """
        with self._loading:
            if version in self._loaded:
                return
            ranker, encoder = self._session(version, RANKER_FILE), self._session(version, ENCODER_FILE)
            bundle = self._engine.load_bundle(str(self._store.folder_of(version)))
            self._loaded[version] = _Loaded(Ranker(ranker, bundle) if ranker else None, encoder)
            for old in set(self._loaded) - {version, *self._needed()}:
                self._engine.unload_bundle(old)
                del self._loaded[old]

    def restore(self) -> None:
        """Load the bundles that a snapshot says are active, on trial, and were active before."""
        for version in self._needed():
            self._load_or_degrade(version)

    def before_apply(self, record: LogRecord) -> None:
        """Load the bundles of an activation, so that every replica switches at the same offset."""
        if record.kind == RECORD_KIND_ACTIVATION:
            activation = Activation.FromString(record.payload)
            for version in (activation.version, activation.trial.version):
                self._load_or_degrade(version)

    def decide(self, request: bytes, now_ms: int, *, on_trial: bool = False) -> Answer:
        """Return the decision of a `RecommendRequest`, of the bundle that serves or of the one on trial.

        Raises
        ------
        EngineError : the request is at fault
        """
        outcome = self._engine.decide(request, now_ms, on_trial=on_trial)
        if not isinstance(outcome, Plan):
            return outcome
        actions, degraded = self.score(outcome.model_version, outcome.features)
        return self._engine.finish(outcome, actions, degraded)

    def score(self, version: str, features: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
        """Return the actions of every row, or None with the reason for `degraded`; empty: the heuristic ranks."""
        if not version:
            return None, ""
        ranker = self._ranker(version)
        return ranker.score(features) if ranker else (None, "model_missing")

    def ask(self, version: str, features: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return the actions of every row, or None; questions of this kind never pause a model."""
        ranker = self._ranker(version)
        return ranker.ask(features)[0] if ranker else None

    def encode(self, histories: Histories) -> NDArray[np.float32]:
        """Return the vector of every history, shape (n, width).

        Raises
        ------
        LookupError : the bundle's encoder is not loaded
        Exception : of a class of onnxruntime's own making, the graph failed
        """
        loaded = self._loaded.get(histories.version)
        if loaded is None or loaded.encoder is None:
            raise LookupError(f"the encoder of bundle `{histories.version}` is not loaded")
        inputs = {"items": histories.items, "actions": histories.actions, "gaps": histories.gaps}
        (vectors,) = loaded.encoder.run(["vector"], inputs)
        return np.ascontiguousarray(vectors, np.float32)

    def age_s(self, now_ms: int) -> float:
        """Return the seconds since the data of the active bundle ended; 0 without a bundle."""
        version = self._engine.active_model
        return (now_ms - self._store.manifest(version).train_end_ms) / 1000 if version in self._loaded else 0.0

    def _session(self, version: str, name: str) -> ort.InferenceSession | None:
        """Return a session over a file of a bundle; None if the bundle has no such file."""
        path = self._store.verified_file(version, name)
        try:
            return open_session(path) if path else None
        except Exception as error:
            raise ServiceError("BUNDLE_REJECTED", f"bundle `{version}`: {name} does not load") from error

    def _ranker(self, version: str) -> Ranker | None:
        loaded = self._loaded.get(version)
        return loaded.ranker if loaded else None

    def _needed(self) -> tuple[str, ...]:
        trial = Trial.FromString(self._engine.trial)
        return (self._engine.previous_model, self._engine.active_model, trial.version)

    def _load_or_degrade(self, version: str) -> None:
        if not version:
            return
        try:
            self.load(version)
        except (ServiceError, EngineError, OSError):
            _log.exception("bundle not loaded; the heuristic ranks", version=version)
