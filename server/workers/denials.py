"""Denials of browsers become records of the users who are bound by them.

A user who logs in where somebody denied is denied too. What shows it is the browser's own answer and an event with both
ids, and either may be erased, or end by age; so it is written down as the user's, without the id of the browser. Every
machine looks for what is in no record yet, at times of its own, so that mostly one of them writes it; another copy of
it is stored once in each log.
"""

import random
import threading
from typing import Final

import structlog

from core_rs import Engine, EngineError
from server.kinds import content_id
from server.ports import EventLog, NewRecord
from shopkeeper.v1.record_pb2 import RECORD_KIND_STATED

_PAUSE_S: Final = (0.1, 0.9)
_AT_ONCE: Final = 1_000

_logger = structlog.get_logger(__name__)


def denial_record(visitor_id: str, time_ms: int, payload: bytes) -> NewRecord:
    """Return the record of a denial that binds a user since `time_ms`; the same is stored once."""
    return NewRecord(RECORD_KIND_STATED, visitor_id, content_id("stated", payload + str(time_ms).encode()), payload)


def denial_records(engine: Engine) -> list[tuple[NewRecord, int]]:
    """Return records, with their times, of denials that bind users and are in none; of a great many some."""
    found = engine.unrecorded_denials(_AT_ONCE)
    return [(denial_record(visitor_id, time_ms, payload), time_ms) for visitor_id, time_ms, payload in found]


class DenialRecorder:
    """Thread that records what users of an engine took over from browsers.

    Parameters
    ----------
    engine : knows who is bound by what
    log : takes the records
    """

    def __init__(self, engine: Engine, log: EventLog) -> None:
        self._engine = engine
        self._log = log
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="denials", daemon=True)

    def start(self) -> None:
        """Record from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is not recorded yet is found at the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def record(self) -> int:
        """Queue records of what is in none; return how many. What is not stored comes again at the next look."""
        found = denial_records(self._engine)
        for count, (record, time_ms) in enumerate(found):
            if not self._log.append_later([record], time_ms):
                return count
        return len(found)

    def _run(self) -> None:
        while not self._stopping.wait(random.uniform(*_PAUSE_S)):  # noqa: S311 - it only keeps machines apart
            try:
                self.record()
            except EngineError:
                _logger.exception("denials_not_recorded")
