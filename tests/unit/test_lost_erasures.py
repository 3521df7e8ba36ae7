"""A login comes late to a log that lacks the first of two erasures of its user: what a browser did since stays."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.adapters.log_erasure import keep_lost
from server.adapters.sqlite_log import connect
from server.ports import Arrival, Kept, LogRecord, NewRecord
from server.workers.restore import ORIGIN
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE
from tests.machines import Machine, exchange, kept, three_machines
from tests.table_shop import erasure, event


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    yield from three_machines(tmp_path)


def restored(machine: Machine, *lost: NewRecord) -> None:
    """Give a machine the newest of the erasures, as the tables have them."""
    kind, key, record_id, payload = lost[-1]
    machine.inbox.take([Arrival(LogRecord(0, kind, 9_000, key, record_id, payload), ORIGIN, 0)], {})
    with closing(connect(machine.path)) as log:
        keep_lost(log, machine.log.last_offset())


def trimmed(machine: Machine, *lost: NewRecord) -> None:
    """Give a machine both erasures, and let it trim the first."""
    for time_ms, (kind, key, record_id, payload) in zip((1_000, 9_000), lost, strict=True):
        machine.inbox.take([Arrival(LogRecord(0, kind, time_ms, key, record_id, payload), "here", time_ms)], {})
    assert machine.outbox.trim(Kept(1, range(2**60, 2**61)), 1) == 1


def test_a_log_that_lacks_the_first_erasure_tells_of_no_browser_that_is_known_to_be_forgotten_later(
    machines: list[Machine],
) -> None:
    there, third, _ = machines
    stream: list[Arrival] = []
    for number in range(3):
        there.write(event(f"e{number}", "a", visitor_id="phone", user_id="u"), time_ms=500 + number)
    restored(third, erasure("phone"))
    restored(third, erasure("u"))
    exchange(stream, there, third)
    assert [one.time_ms for one in third.log.records_of("phone")] == [9_000]
    assert not third.outbox.read(0, 9)


@pytest.mark.parametrize("without_first", [restored, trimmed])
def test_a_log_that_lacks_the_first_erasure_takes_nothing_that_a_browser_did_after_it(
    machines: list[Machine], without_first: Callable[..., None]
) -> None:
    here, there, third = machines
    stream: list[Arrival] = []
    there.write(event("e1", "old", visitor_id="phone"), time_ms=400)
    there.write(event("e2", "login", visitor_id="phone", user_id="u"), time_ms=500)
    here.write(erasure("u"), time_ms=1_000)
    here.write(event("e3", "new", visitor_id="phone"), time_ms=5_000)
    here.write(erasure("u"), time_ms=9_000)
    without_first(third, erasure("u"), erasure("u"))
    while there.shipped < there.log.last_offset():
        there.ship(stream)
    exchange(stream, third, here)
    assert kept(third) == [("e3", 5_000)], "and nothing of before the login"
    assert [one.time_ms for one in third.log.records_of("phone") if one.kind == RECORD_KIND_ERASURE] == [500]
    exchange(stream, there, third, here)
    assert [kept(machine) for machine in machines] == [[("e3", 5_000)]] * 3
