"""A log that always has more keeps the sink from nothing else: it answers, stops, and ends what it was asked for."""

import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from server.ports import Batch, Erasure, EventStore, LogRecord, StoreUnavailableError
from server.settings import SinkSettings
from server.workers import sink as module
from server.workers.sink import Sink
from tests.table_shop import wait_until

ROWS = 10
SETTINGS = SinkSettings(batch_rows=ROWS)


class EndlessFeed:
    """Feed into which as much comes as is read."""

    def __init__(self, behind: int) -> None:
        self.behind = behind
        self.offset = 0
        self.closed = False

    def begin(self, positions: Callable[[], Mapping[str, int]]) -> None:
        positions()

    def read(self, limit: int) -> Batch:
        assert not self.closed, "read after the test"
        offsets = range(self.offset + 1, self.offset + limit + 1)
        self.offset += limit
        return Batch([LogRecord(offset, 0, 1, "", "", b"") for offset in offsets], {"log": self.offset})

    def lag(self) -> int:
        return self.behind

    def close(self) -> None:
        self.closed = True


class NoStore:
    """Store that takes all and keeps nothing."""

    def insert(self, table: str, rows: pa.Table) -> None:
        pass

    def erasures(self) -> dict[str, Erasure]:
        return {}

    def erase(self, erasures: Mapping[str, Erasure]) -> None:
        pass

    def positions(self) -> dict[str, int]:
        return {}

    def save_positions(self, positions: Mapping[str, int]) -> None:
        pass


@pytest.fixture
def feed() -> Iterator[EndlessFeed]:
    feed = EndlessFeed(behind=3 * ROWS + 1)
    yield feed
    feed.close()


def sink_of(feed: EndlessFeed) -> Sink:
    store: EventStore = NoStore()  # type: ignore[assignment]  # as much of it as is called
    return Sink(feed, store, SETTINGS)


def test_sink_answers_others_and_stops_though_there_is_always_more(feed: EndlessFeed) -> None:
    stopping = threading.Event()
    answered_at: list[int] = []
    thread = threading.Thread(target=sink_of(feed).run, args=(stopping, lambda: answered_at.append(feed.offset)))
    thread.start()
    try:
        wait_until(lambda: len(answered_at) > 20, 10)
        steps = [after - before for before, after in pairwise(answered_at)]
        assert set(steps) == {ROWS}, "one batch between two answers"
    finally:
        stopping.set()
        stopped_at = feed.offset
        thread.join(60)
        is_alive, read = thread.is_alive(), feed.offset - stopped_at
        feed.close()  # ends a thread that goes on
    assert not is_alive
    assert read <= 3 * ROWS


def test_sink_tells_once_that_the_tables_are_away_and_once_that_they_are_back(
    feed: EndlessFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    sink, stopping, failures = sink_of(feed), threading.Event(), [StoreUnavailableError("away")] * 20

    def save(_: Mapping[str, int]) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(sink._store, "save_positions", save)
    thread = threading.Thread(target=sink.run, args=(stopping, lambda: None))
    with capture_logs() as lines:
        thread.start()
        try:
            wait_until(lambda: [line["event"] for line in lines] == ["batch_not_stored", "works_again"], 10)
        finally:
            stopping.set()
            thread.join(60)
    assert not failures
    assert lines[0]["reason"] == "away"


def test_drain_ends_where_the_log_ended_when_it_was_asked(feed: EndlessFeed) -> None:
    thread = threading.Thread(target=sink_of(feed).drain)
    thread.start()
    thread.join(60)
    is_alive = thread.is_alive()
    feed.close()
    assert not is_alive
    assert feed.behind <= feed.offset < feed.behind + ROWS


def test_a_sweep_that_fails_keeps_no_rows_waiting(feed: EndlessFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    sink, stopping, sweeps = sink_of(feed), threading.Event(), []

    def learn_erasures() -> None:
        sweeps.append(feed.offset)
        raise StoreUnavailableError("a node is away")

    monkeypatch.setattr(sink._writer, "learn_erasures", learn_erasures)
    thread = threading.Thread(target=sink.run, args=(stopping, lambda: None))
    thread.start()
    try:
        wait_until(lambda: len(sweeps) > 2, 10)
        read = feed.offset
        wait_until(lambda: feed.offset > read + 5 * ROWS, 10)
    finally:
        stopping.set()
        thread.join(60)
    assert not thread.is_alive()
