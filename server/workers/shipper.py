"""From the outbox to Kafka: in order, at least once, behind the answers; consumers drop what comes twice.

The place in the outbox is kept after the acknowledgement, so a crash repeats a round and never loses one.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from server import telemetry
from server.ports import ALL_KEPT, Clock, Kept, LogUnavailableError, Outbox, Stream, StreamUnavailableError
from server.workers.outage import Outage

POLL_S: Final = 0.02
WAIT_S: Final = (0.5, 15.0)
"""Seconds before the first new try, and at most."""
ROUND_RECORDS: Final = 20_000
SIZE_S: Final = 5.0
TRIM_S: Final = 60.0

_logger = structlog.get_logger(__name__)


class Shipper:
    """Drains an outbox.

    Parameters
    ----------
    outbox : log to drain
    stream : where its records go
    clock : time of the shop, in which the age of a record is told
    kept : returns what stays in the log though it is shipped
    may_ship : returns whether it is known that the log did not go back
    """

    def __init__(
        self,
        outbox: Outbox,
        stream: Stream,
        clock: Clock,
        kept: Callable[[], Kept] = lambda: ALL_KEPT,
        may_ship: Callable[[], bool] = lambda: True,
    ) -> None:
        self._outbox = outbox
        self._stream = stream
        self._clock = clock
        self._kept = kept
        self._may_ship = may_ship
        self._passed = 0
        self._measured = self._trimmed = -SIZE_S
        self._wait_s = WAIT_S[0]
        self._outage = Outage("not_shipped", "what the reason says; the outbox keeps what comes, and it is tried again")

    def step(self) -> int:
        """Ship the next round; return its number of records."""
        end = self._outbox.last_offset()
        records = self._outbox.read(self._place(), ROUND_RECORDS)
        if not records:
            self._pass(end)
            return 0
        count = self._stream.send(records, self._outbox.origin)
        self._outbox.mark_shipped(records[count - 1].offset)
        telemetry.SHIPPED_RECORDS.inc(count)
        return count

    def run(self, stopping: threading.Event) -> None:
        """Ship what comes as soon as we may, until `stopping`. Nothing is lost then: the next start goes on."""
        while not stopping.wait(POLL_S):
            try:
                self._measure()
                if not self._may_ship():
                    continue
                while not stopping.is_set() and self.step():
                    self._outage.end()
                    self._wait_s = WAIT_S[0]
                    self._measure()
                self._trim()
                self._outage.end()
            except (StreamUnavailableError, LogUnavailableError) as error:
                telemetry.SHIP_RETRIES.inc()
                self._outage.tell(error)
                stopping.wait(self._wait_s)
                self._wait_s = min(2 * self._wait_s, WAIT_S[1])

    def _place(self) -> int:
        """Return the offset up to which nothing is to be shipped."""
        return max(self._passed, self._outbox.shipped())

    def _pass(self, end: int) -> None:
        """Remember that nothing of ours is up to `end`; on disk seldom, for a mark is a sync."""
        self._passed = end
        if end - self._outbox.shipped() >= ROUND_RECORDS:
            self._outbox.mark_shipped(end)

    def _measure(self) -> None:
        if time.monotonic() - self._measured < SIZE_S:
            return
        self._measured = time.monotonic()
        size = self._outbox.size(self._place())
        telemetry.OUTBOX_RECORDS.set(size.record_count)
        telemetry.OUTBOX_BYTES.set(size.byte_count)
        age_ms = self._clock.now_ms() - size.oldest_ms if size.oldest_ms else 0
        telemetry.OUTBOX_AGE_SECONDS.set(max(0, age_ms) / 1000)

    def _trim(self) -> None:
        if time.monotonic() - self._trimmed < TRIM_S:
            return
        self._trimmed = time.monotonic()
        if count := self._outbox.trim(self._kept(), self._place()):
            _logger.info("outbox_trimmed", record_count=count)
