"""The follower takes over what comes, and lets the stream tell how far behind it is."""

import threading

import pytest

from server.ports import Arrival, LogRecord, LogUnavailableError, LogWentBackError, StreamUnavailableError
from server.workers import follower as module
from server.workers.follower import Follower
from tests.table_shop import wait_until


class Feed:
    def __init__(self, count):
        self.arrivals = [Arrival(LogRecord(n, 1, 0, "v", f"e{n}", b""), "other", n) for n in range(1, count + 1)]
        self.measured = self.begun = self.read = self.asked = 0
        self.end, self.is_cut = count, False

    def begin(self, positions):
        self.begun += 1
        self.read = positions().get("events/0", 0)

    def read_arrivals(self, limit):
        self.asked += 1
        found = self.arrivals[self.read : self.read + min(limit, 2)]
        self.read += len(found)
        return found, {"events/0": self.read} if found else {}

    def ends(self):
        return {"events/0": self.end}

    def missed(self):
        return self.is_cut

    def lag(self):
        self.measured += 1
        return len(self.arrivals) - self.read


class Inbox:
    def __init__(self, *failures):
        self.taken, self.kept, self.failures, self.parted = [], {}, [*failures], []

    def places(self):
        return dict(self.kept)

    def part_from(self, origin, offset):
        self.parted.append((origin, offset))

    def rename(self):
        self.parted.append("all")

    def take(self, arrivals, places):
        if self.failures:
            raise self.failures.pop()
        self.taken += [arrival.record.record_id for arrival in arrivals]
        self.kept |= places
        return len(arrivals)


def test_what_could_not_be_taken_is_read_again_and_the_lag_is_measured(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "MEASURE_S", 0.01)
    feed, inbox = Feed(5), Inbox(LogUnavailableError("disk"))
    stopping = threading.Event()
    thread = threading.Thread(target=Follower(feed, inbox).run, args=(stopping,))
    thread.start()
    wait_until(lambda: len(inbox.taken) == 5 and feed.measured > 2)
    stopping.set()
    thread.join()
    assert inbox.taken == [f"e{number}" for number in range(1, 6)]
    assert feed.begun == 2


def test_what_another_try_would_not_mend_ends_the_follower():
    feed, inbox = Feed(1), Inbox(LogWentBackError("me", 7))
    with pytest.raises(LogWentBackError):
        Follower(feed, inbox).run(threading.Event())
    inbox.failures = [TypeError("foreign")]
    with pytest.raises(TypeError):
        Follower(feed, inbox).run(threading.Event())


def test_follower_catches_up_with_what_there_was_and_parts_from_what_the_log_never_had(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    feed = Feed(5)
    inbox = Inbox(LogWentBackError("me", 4), LogWentBackError("me", 7), LogUnavailableError("disk"))
    Follower(feed, inbox).catch_up(threading.Event())
    assert inbox.taken == [f"e{number}" for number in range(1, 6)]
    assert inbox.parted == [("me", 7), ("me", 4)]
    assert feed.begun == 4


def test_follower_that_missed_records_does_not_trust_the_name_of_its_log():
    feed = Feed(1)
    feed.is_cut = True
    Follower(feed, inbox := Inbox()).catch_up(threading.Event())
    assert (inbox.parted, inbox.taken) == (["all"], ["e1"])


def test_follower_does_not_wait_for_what_the_stream_dropped():
    feed = Feed(3)
    feed.end = 9
    follower = Follower(feed, inbox := Inbox())
    thread = threading.Thread(target=follower.catch_up, args=(threading.Event(),))
    thread.start()
    wait_until(lambda: len(inbox.taken) == 3)
    assert thread.is_alive()
    feed.end = 3
    thread.join(60)
    assert not thread.is_alive()


def test_patience_ends_where_the_stream_has_more_and_gives_nothing(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    feed = Feed(3)
    feed.end = 9
    with pytest.raises(StreamUnavailableError, match=r"events/0 gave nothing for 0.2 s; look at the brokers"):
        Follower(feed, inbox := Inbox()).catch_up(threading.Event(), 0.2)
    assert len(inbox.taken) == 3
    assert feed.asked < 20, "with a pause"


def test_patience_is_renewed_by_what_comes_and_ends_with_the_last_fault(monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.2)
    inbox = Inbox(*[LogUnavailableError("disk")] * 3)
    Follower(Feed(1), inbox).catch_up(threading.Event(), 5.0)
    assert inbox.taken == ["e1"]
    inbox = Inbox(*[LogUnavailableError("disk is full")] * 9)
    with pytest.raises(LogUnavailableError, match="disk is full"):
        Follower(Feed(1), inbox).catch_up(threading.Event(), 0.3)
