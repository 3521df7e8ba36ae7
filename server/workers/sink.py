"""The table view follows the log: at least once by position, exactly once by the keys of the tables.

Positions are kept after the rows, so a crash repeats a batch and never loses one.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from server import telemetry
from server.ports import Batch, EventStore, Feed, LogUnavailableError, StoreError, StreamUnavailableError
from server.settings import SinkSettings
from server.workers.outage import Outage
from server.workers.table_writer import TableWriter

POLL_S: Final = 0.05
RETRY_S: Final = 1.0
SWEEP_S: Final = 3_600.0
"""Seconds between two sweeps of what was erased lately."""
SWEPT_MS: Final = 86_400_000
"""Time before the newest erasure from which on a sweep repeats erasures, in the shop's own time."""
_LATER: Final = (StoreError, LogUnavailableError, StreamUnavailableError)
"""After which the same is tried again."""

_logger = structlog.get_logger(__name__)


class Sink:
    """Writer of the table view.

    Parameters
    ----------
    feed : log to follow
    store : tables to fill, up to date
    settings : size and wait of a batch

    Raises
    ------
    StoreError : the tables belong to another log
    """

    def __init__(self, feed: Feed, store: EventStore, settings: SinkSettings) -> None:
        self._feed = feed
        self._store = store
        self._settings = settings
        self._batch: Batch | None = None
        self._writer = TableWriter(store)
        self._swept = time.monotonic()
        self._swept_erasures = self._writer.erasures
        self._outage = Outage("batch_not_stored", "what the reason says; the batch is kept and tried again")
        feed.begin(self._positions)

    def step(self) -> int:
        """Write the next batch; return its number of records. One that failed is tried again, as it was."""
        batch = self._batch or self._feed.read(self._settings.batch_rows)
        if batch.positions:
            self._batch = batch
            if batch.records:
                with telemetry.SINK_SECONDS.time():
                    self._writer.write(batch.records)
                telemetry.SINK_BATCH_RECORDS.observe(len(batch.records))
            self._store.save_positions(batch.positions)
            self._batch = None
        return len(batch.records)

    def drain(self) -> int:
        """Write the records there are now, and few that come meanwhile; return how many."""
        count, goal = 0, self._waiting()
        while count < goal and (written := self.step()):
            count += written
        return count

    def run(self, stopping: threading.Event, meanwhile: Callable[[], object]) -> None:
        """Write batches as they fill or age, and call `meanwhile` before each, until `stopping`; then write one more.

        A batch that the store refuses is tried again until it is taken.
        """
        behind_since: float | None = None
        pause_s = POLL_S
        while not stopping.wait(pause_s):
            try:
                meanwhile()
                waiting = self._waiting()
                telemetry.SINK_LAG_RECORDS.set(waiting)
                behind_since = (behind_since or time.monotonic()) if waiting else None
                is_full = waiting >= self._settings.batch_rows
                pause_s = 0.0 if is_full else POLL_S
                if is_full or (behind_since and self._aged(behind_since)):
                    self.step()
                    behind_since = None
                self._sweep()
                self._outage.end()
            except _LATER as error:
                telemetry.SINK_RETRIES.labels(_cause(error)).inc()
                self._outage.tell(error)
                stopping.wait(RETRY_S)
        self._write_last()

    def _positions(self) -> Mapping[str, int]:
        """Return where the tables are; asked when parts of the log become ours, whose erasures others have met."""
        positions = self._store.positions()
        self._writer.learn_erasures()
        return positions

    def _waiting(self) -> int:
        """Return how many records there are to write, as far as is known."""
        return self._feed.lag() + (len(self._batch.records) if self._batch else 0)

    def _write_last(self) -> None:
        try:
            self.step()
        except _LATER as error:
            _logger.warning("batch_left", reason=str(error), fix="none: the log has it for the next start")

    def _aged(self, since: float) -> bool:
        return time.monotonic() - since >= self._settings.batch_ms / 1000

    def _sweep(self) -> None:
        """Erase once more what was erased lately, or came late: another sink may have written old records since."""
        if time.monotonic() - self._swept >= SWEEP_S:
            self._swept = time.monotonic()  # whatever becomes of it: rows do not wait for a sweep
            self._writer.learn_erasures()
            erasures, known = self._writer.erasures, self._swept_erasures
            since_ms = max((one.time_ms for one in erasures.values()), default=0) - SWEPT_MS
            lately = {key: one for key, one in erasures.items() if one.time_ms >= since_ms or one != known.get(key)}
            self._store.erase(lately)
            self._swept_erasures = erasures


def _cause(error: Exception) -> str:
    if isinstance(error, StreamUnavailableError):
        return "kafka"
    return "log" if isinstance(error, LogUnavailableError) else "tables"
