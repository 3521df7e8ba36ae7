"""The follower takes over what comes, and lets the stream tell how far behind it is."""

import threading

from server.ports import Arrival, LogRecord, LogUnavailableError
from server.workers import follower as module
from server.workers.follower import Follower
from tests.table_shop import wait_until


class Feed:
    def __init__(self, count):
        self.arrivals = [Arrival(LogRecord(n, 1, 0, "v", f"e{n}", b""), "other", n) for n in range(1, count + 1)]
        self.measured = self.begun = self.read = 0

    def begin(self, positions):
        self.begun += 1
        self.read = positions().get("events/0", 0)

    def read_arrivals(self, limit):
        found = self.arrivals[self.read : self.read + min(limit, 2)]
        self.read += len(found)
        return found, {"events/0": self.read} if found else {}

    def lag(self):
        self.measured += 1
        return len(self.arrivals) - self.read


class Inbox:
    def __init__(self):
        self.taken, self.kept, self.failures = [], {}, [LogUnavailableError("disk")]

    def places(self):
        return self.kept

    def take(self, arrivals, places):
        if self.failures:
            raise self.failures.pop()
        self.taken += [arrival.record.record_id for arrival in arrivals]
        self.kept |= places
        return len(arrivals)


def test_what_could_not_be_taken_is_read_again_and_the_lag_is_measured(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "MEASURE_S", 0.01)
    feed, inbox = Feed(5), Inbox()
    stopping = threading.Event()
    thread = threading.Thread(target=Follower(feed, inbox).run, args=(stopping,))
    thread.start()
    wait_until(lambda: len(inbox.taken) == 5 and feed.measured > 2)
    stopping.set()
    thread.join()
    assert inbox.taken == [f"e{number}" for number in range(1, 6)]
    assert feed.begun == 2
