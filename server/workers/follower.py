"""From Kafka to the log of this machine: what other machines wrote, for the replicas here."""

import threading
import time
from typing import Final

import structlog

from server import telemetry
from server.ports import ArrivalFeed, Inbox, LogUnavailableError, StoreError, StreamUnavailableError

RETRY_S: Final = 1.0
READ_RECORDS: Final = 10_000
MEASURE_S: Final = 1.0
"""Seconds between two looks at how far behind we are."""

_logger = structlog.get_logger(__name__)


class Follower:
    """Fills an inbox.

    Parameters
    ----------
    feed : stream to follow
    inbox : log to fill; it keeps the places
    """

    def __init__(self, feed: ArrivalFeed, inbox: Inbox) -> None:
        self._feed = feed
        self._inbox = inbox
        self._measured = 0.0
        feed.begin(inbox.places)

    def step(self) -> int:
        """Take over what has come; return how many records were appended. What fails is read again."""
        arrivals, places = self._feed.read_arrivals(READ_RECORDS)
        if not places:
            return 0
        try:
            count = self._inbox.take(arrivals, places)
        except LogUnavailableError:
            self._feed.begin(self._inbox.places)
            raise
        telemetry.FOREIGN_RECORDS.inc(count)
        return count

    def run(self, stopping: threading.Event) -> None:
        """Take over what comes, until `stopping`."""
        while not stopping.is_set():
            try:
                self.step()
                self._measure()
            except (StreamUnavailableError, StoreError, LogUnavailableError) as error:
                _logger.warning("not_followed", reason=str(error), fix="none: it is tried again")
                stopping.wait(RETRY_S)

    def _measure(self) -> None:
        """Let the stream count what it holds for us; it tells the lag of each partition."""
        if time.monotonic() - self._measured >= MEASURE_S:
            self._feed.lag()
            self._measured = time.monotonic()
