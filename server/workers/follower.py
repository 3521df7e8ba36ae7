"""From Kafka to the log of this machine: what other machines wrote, for the replicas here."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog

from server import telemetry
from server.ports import (
    ArrivalFeed,
    Inbox,
    LogUnavailableError,
    LogWentBackError,
    StoreError,
    StreamUnavailableError,
)
from server.workers.outage import Outage

RETRY_S: Final = 1.0
READ_RECORDS: Final = 10_000
_PAUSE_S: Final = 0.05
"""Seconds until the stream is asked again, where it gave nothing."""
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
        self._outage = Outage("not_followed", "what the reason says; it is tried again")
        feed.begin(inbox.places)

    def catch_up(self, stopping: threading.Event, patience_s: float = math.inf) -> None:
        """Take over what the stream has by now; nothing may be shipped meanwhile.

        Where the log turns out to be an older copy, it goes on under a new name: what it shipped under the old one from
        there on would be taken for repeats. It does so too where that can no longer be told.

        Raises
        ------
        StreamUnavailableError, StoreError, LogUnavailableError : nothing came for `patience_s` seconds
        """
        goal: Mapping[str, int] | None = None
        is_sure = False
        deadline = time.monotonic() + patience_s
        while not stopping.is_set():
            with self._tried_again(stopping, deadline):
                if not is_sure and self._feed.missed():
                    self._inbox.rename()
                is_sure = True
                places = self._inbox.places()
                goal = self._feed.ends() if goal is None else goal
                if all(places.get(name, -1) >= end for name, end in goal.items()):
                    return
                try:
                    self.step()
                except LogWentBackError as error:
                    self._part_from(error)
                if self._inbox.places() != places:
                    deadline = time.monotonic() + patience_s
                elif time.monotonic() < deadline:
                    goal = None  # the stream may have dropped what we wait for
                    stopping.wait(_PAUSE_S)
                else:
                    raise _late(places, goal, patience_s)

    def step(self) -> int:
        """Take over what has come; return how many records were appended. What fails is read again.

        Raises
        ------
        LogWentBackError : the log is an older copy; `catch_up` can go on with it
        """
        arrivals, places = self._feed.read_arrivals(READ_RECORDS)
        if not places:
            return 0
        try:
            count = self._inbox.take(arrivals, places)
        except (LogUnavailableError, LogWentBackError):
            self._feed.begin(self._inbox.places)
            raise
        telemetry.FOREIGN_RECORDS.inc(count)
        return count

    def run(self, stopping: threading.Event) -> None:
        """Take over what comes, until `stopping`; raises what `step` does where another try would not help."""
        while not stopping.is_set():
            with self._tried_again(stopping):
                self.step()
                self._measure()

    @contextmanager
    def _tried_again(self, stopping: threading.Event, deadline: float = math.inf) -> Iterator[None]:
        try:
            yield
            self._outage.end()
        except (StreamUnavailableError, StoreError, LogUnavailableError) as error:
            if time.monotonic() >= deadline:
                raise
            self._outage.tell(error)
            stopping.wait(RETRY_S)

    def _part_from(self, error: LogWentBackError) -> None:
        self._inbox.part_from(error.origin, error.offset)
        _logger.error(
            "log_went_back",
            origin=error.origin,
            offset=error.offset,
            fix="none: what Kafka has of it was taken back, and the log has a new name there",
        )

    def _measure(self) -> None:
        """Let the stream count what it holds for us; it tells the lag of each partition."""
        if time.monotonic() - self._measured >= MEASURE_S:
            self._feed.lag()
            self._measured = time.monotonic()


def _late(places: Mapping[str, int], goal: Mapping[str, int], patience_s: float) -> StreamUnavailableError:
    """Return what to say of a stream that has more and does not give it."""
    behind = sorted(name for name, end in goal.items() if places.get(name, -1) < end)
    parts = f"{behind[0]} and {len(behind) - 1} others" if len(behind) > 1 else behind[0]
    return StreamUnavailableError(f"{parts} gave nothing for {patience_s:g} s; look at the brokers")
