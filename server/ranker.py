"""The ranking model of a bundle, and what to do when it is late or wrong."""

import math
import time
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from core_rs import Bundle

RANKER_FILE: Final = "ranker.onnx"

_BUDGET_S: Final = 0.05
_PATIENCE: Final = 3
_PAUSE_S: Final = 10.0


def open_session(path: Path) -> ort.InferenceSession:
    """Return a session of one thread that never spins: the processes, not the sessions, fill the cores."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Ranker:
    """Model of one bundle.

    `score` runs where it is called: a thousand rows take well under a millisecond, less than a thread would cost. A
    model that was late or failed three times in a row is left alone for ten seconds; the heuristic ranks meanwhile. One
    that the engine evaluates itself is never left alone: it waits for nothing, and its time is known when it is
    published.

    Parameters
    ----------
    session : session with input `features` and output `actions`
    bundle : scores in place of the session where the engine can evaluate the graph
    """

    def __init__(self, session: ort.InferenceSession, bundle: Bundle | None = None) -> None:
        self._session = session
        self._bundle = bundle
        self._faults = 0
        self._paused_until = 0.0

    def score(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
        """Return the actions of every row, shape (n, h), or None with the reason that goes into `degraded`."""
        evaluated = self._evaluated(features)
        if evaluated is not None:
            return evaluated
        started = time.monotonic()
        if started < self._paused_until:
            return None, "model_paused"
        actions, reason = self._run(features)
        self._count(late=time.monotonic() - started > _BUDGET_S, failed=bool(reason))
        return actions, reason

    def ask(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
        """Return the same, however late and whatever was before; it counts for nothing."""
        evaluated = self._evaluated(features)
        return self._run(features) if evaluated is None else evaluated

    def _evaluated(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str] | None:
        """Return what the engine answers; None where it cannot evaluate the graph."""
        actions = self._bundle.score(features) if self._bundle else None
        return None if actions is None else _finite(actions)

    def _run(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
        try:
            (actions,) = self._session.run(["actions"], {"features": features})
        except Exception:  # noqa: BLE001 - onnxruntime raises classes of its own making
            return None, "model_failed"
        return _finite(actions)

    def _count(self, *, late: bool, failed: bool) -> None:
        self._faults = self._faults + 1 if late or failed else 0
        if self._faults >= _PATIENCE:
            self._paused_until = time.monotonic() + _PAUSE_S
            self._faults = 0


def _finite(actions: NDArray[np.float32]) -> tuple[NDArray[np.float32] | None, str]:
    if not math.isfinite(np.vdot(actions, actions)):  # one pass; what is not finite stays so in the sum
        return None, "model_not_finite"
    return actions, ""
