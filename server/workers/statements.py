"""What browsers answered becomes a record of the users who took it over.

A user who logs in where somebody denied is denied too, and one who has not answered is granted what was granted there.
What shows it is the browser's own answer and an event with both ids, and either may be erased, or end by age; so it is
written down as the user's, without the id of the browser. Every machine looks for what is in no record yet, at times of
its own, so that mostly one of them writes it; another copy of it is stored once in each log.
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


def statement_record(visitor_id: str, time_ms: int, payload: bytes) -> NewRecord:
    """Return the record of what a user took over, of the time that the engine gives it; the same is stored once.

    A grant has the time at which the browser gave it, so that an erasure of the user takes it along which was as of
    later, though the machine that recorded it had not heard of it.
    """
    return NewRecord(RECORD_KIND_STATED, visitor_id, content_id("stated", payload + str(time_ms).encode()), payload)


def statement_records(engine: Engine) -> list[tuple[NewRecord, int]]:
    """Return records, with their times, of what users took over and is in none; of a great many some."""
    found = engine.unrecorded_statements(_AT_ONCE)
    return [(statement_record(visitor_id, time_ms, payload), time_ms) for visitor_id, time_ms, payload in found]


class StatementRecorder:
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
        self._thread = threading.Thread(target=self._run, name="statements", daemon=True)

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
        found = statement_records(self._engine)
        for count, (record, time_ms) in enumerate(found):
            if not self._log.append_later([record], time_ms):
                return count
        return len(found)

    def _run(self) -> None:
        while not self._stopping.wait(random.uniform(*_PAUSE_S)):  # noqa: S311 - it only keeps machines apart
            try:
                self.record()
            except EngineError:
                _logger.exception("statements_not_recorded")
