from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.adapters import log_rows
from server.adapters.inbox import SqliteInbox
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog, connect
from server.defaults import PLACEMENTS, add_placements
from server.ports import Arrival, Kept, LogRecord, LogWentBackError, NewRecord, OutboxSize
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import ItemChange
from tests.table_shop import event

EVENT, ITEM, PROFILE, DOCUMENT, ERASURE, STATED = 1, 3, 4, 5, 6, 8


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.sqlite"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(path)
    yield log
    log.close()


@pytest.fixture
def outbox(path: Path) -> Iterator[SqliteOutbox]:
    outbox = SqliteOutbox(path)
    yield outbox
    outbox.close()


@pytest.fixture
def inbox(path: Path) -> Iterator[SqliteInbox]:
    inbox = SqliteInbox(path)
    yield inbox
    inbox.close()


def write(log: SqliteLog, count: int, *, time_ms: int = 0, start: int = 0) -> None:
    list(log.import_records([[NewRecord(EVENT, "v", f"e{start + index}", b"pp") for index in range(count)]], time_ms))


def younger(start_ms: int) -> Kept:
    """Keep what was taken since."""
    return Kept(2**60, range(start_ms, 2**60))


def arrival(kind: int, record_id: str = "", origin: str = "elsewhere", *, key: str = "v", time_ms: int = 5) -> Arrival:
    return Arrival(LogRecord(999, kind, time_ms, key, record_id, b"p"), origin, 1)


def test_place_and_name_outlive_the_process(log: SqliteLog, outbox: SqliteOutbox, path: Path) -> None:
    write(log, 5)
    assert [record.offset for record in outbox.read(outbox.shipped(), 3)] == [1, 2, 3]
    outbox.mark_shipped(3)
    again = SqliteOutbox(path)
    assert (again.origin, again.shipped()) == (outbox.origin, 3)
    assert again.size(3) == OutboxSize(2, 4, 0)
    again.close()


def test_large_records_come_in_several_reads(
    log: SqliteLog, outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_rows, "READ_BYTES", 100)
    write(log, 1_500)
    assert [len(outbox.read(after, 9_999)) for after in (0, 1_000, 1_500)] == [1_000, 500, 0]


def test_only_what_is_old_and_shipped_is_trimmed(log: SqliteLog, outbox: SqliteOutbox) -> None:
    write(log, 10, time_ms=1)
    write(log, 10, time_ms=9, start=10)
    assert outbox.trim(younger(5), 5) == 5
    assert outbox.trim(younger(5), 100) == 5
    assert outbox.trim(younger(5), 100) == 0
    assert outbox.trim(younger(100), 100) == 9
    assert [record.offset for record in log.read(0, 99)] == [20], "the last stays, so that no offset is used twice"


def test_records_of_others_are_taken_once_and_not_shipped(
    log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox
) -> None:
    write(log, 1)
    arrivals = [arrival(EVENT, "e0"), arrival(EVENT, "e1"), arrival(EVENT, "e1"), arrival(PROFILE)]
    assert inbox.take(arrivals, {"events/0": 4}) == 2
    assert [(one.offset, one.record_id, one.time_ms) for one in log.read(0, 9)] == [
        (1, "e0", 0),
        (2, "e1", 5),
        (3, "", 5),
    ]
    assert [record.record_id for record in outbox.read(0, 9)] == ["e0"]
    assert inbox.places() == {"events/0": 4}


def own_arrivals(log: SqliteLog, origin: str) -> list[Arrival]:
    return [Arrival(record, origin, record.offset) for record in log.read(0, 99)]


def test_own_records_that_come_back_are_left(log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox) -> None:
    write(log, 2)
    assert inbox.take(own_arrivals(log, outbox.origin), {}) == 0
    assert log.last_offset() == 2


def test_own_records_that_were_erased_here_meanwhile_are_left(
    log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox
) -> None:
    write(log, 2)
    sent = own_arrivals(log, outbox.origin)
    list(log.import_records([[NewRecord(ERASURE, "v", "", b"p")]], 0))
    log.erase("v")
    assert inbox.take(sent, {}) == 0
    assert [record.kind for record in log.read(0, 9)] == [ERASURE]


@pytest.mark.parametrize(("offset", "payload"), [(2, b"other"), (3, b"pp")])
def test_own_record_that_the_log_never_had_is_told_and_nothing_is_kept(
    log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox, offset: int, payload: bytes
) -> None:
    write(log, 2)
    strange = Arrival(LogRecord(9, EVENT, 0, "v", "lost", payload), outbox.origin, offset)
    with pytest.raises(LogWentBackError, match="that this log never had") as raised:
        inbox.take([arrival(EVENT, "e9"), strange], {"events/0": 4})
    assert (raised.value.origin, raised.value.offset) == (outbox.origin, offset)
    assert (log.last_offset(), inbox.places()) == (2, {})


def test_log_that_went_back_goes_on_under_a_new_name(path: Path, log: SqliteLog, outbox: SqliteOutbox) -> None:
    write(log, 4)
    old = outbox.origin
    with closing(SqliteInbox(path)) as inbox:
        inbox.part_from(old, 4)
        assert outbox.origin != old
        assert inbox.take(own_arrivals(log, old)[1:2], {}) == 0
        lost = Arrival(LogRecord(9, EVENT, 0, "v", "lost", b"p"), old, 4)
        assert inbox.take([lost], {}) == 1
        assert inbox.take(own_arrivals(log, outbox.origin)[:1], {}) == 0
    assert [one.record_id for one in outbox.read(outbox.shipped(), 9)] == ["e2", "e3"], "Kafka was seen to have e0, e1"
    with closing(SqliteInbox(path)) as again:
        assert again.take([lost._replace(record=lost.record._replace(record_id="lost too"))], {}) == 1


def test_what_is_shipped_goes_back_with_the_log(log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox) -> None:
    write(log, 4)
    outbox.mark_shipped(4)
    inbox.part_from(outbox.origin, 3)
    assert [one.record_id for one in outbox.read(outbox.shipped(), 9)] == ["e2", "e3"]


def test_change_is_made_again_only_after_another_one_of_the_same(
    log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox
) -> None:
    """An item and a visitor may have one name."""
    list(log.import_records([[NewRecord(PROFILE, "104", "", b"ours")]], 0))
    change = ItemChange(item=Item(item_id="104")).SerializeToString()
    assert inbox.take([Arrival(LogRecord(9, ITEM, 5, "", "", change), "elsewhere", 1)], {}) == 1
    assert inbox.take(own_arrivals(log, outbox.origin)[:1], {}) == 0
    assert inbox.take([arrival(PROFILE, key="104"), *own_arrivals(log, outbox.origin)[:1]], {}) == 2


def test_waiting_and_newest_are_those_of_our_own(log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox) -> None:
    write(log, 2)
    inbox.take([arrival(EVENT, "e9"), arrival(EVENT, "e10")], {})
    assert (outbox.last_offset(), outbox.newest(0), outbox.newest(2)) == (4, 2, 2)
    assert (outbox.size(0), outbox.size(2)) == (OutboxSize(2, 4, 0), OutboxSize(0, 0, 0))


def test_grant_that_a_browser_gave_long_ago_makes_no_old_outbox(log: SqliteLog, outbox: SqliteOutbox) -> None:
    list(log.import_records([[NewRecord(STATED, "v", "", b"")]], 1))
    assert outbox.size(0) == OutboxSize(1, 0, 0)
    list(log.import_records([[NewRecord(PROFILE, "v", "", b"")]], 50))
    assert outbox.size(0) == OutboxSize(2, 0, 50)


def test_trimmed_log_takes_no_default_again(log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox) -> None:
    add_placements(log, 0)
    write(log, 5)
    defaults = [one for one in log.read(0, 99) if one.kind == DOCUMENT]
    assert outbox.trim(younger(9), 99) == 4
    assert outbox.trim(younger(9), 99) == 0
    assert log.trimmed_offset() == len(PLACEMENTS) + 4
    add_placements(log, 9)
    assert inbox.take([Arrival(one, "elsewhere", one.offset) for one in defaults], {}) == 0
    assert [one.record_id for one in log.read(0, 99)] == [one.record_id for one in defaults] + ["e4"]


def test_mended_document_is_trimmed_as_others_are(log: SqliteLog, outbox: SqliteOutbox) -> None:
    list(log.import_records([[NewRecord(DOCUMENT, "", "replay-1", b"p")]], 0))
    write(log, 1)
    assert outbox.trim(younger(9), 99) == 1


def test_erasure_of_another_machine_deletes_here(log: SqliteLog, inbox: SqliteInbox) -> None:
    write(log, 3)
    assert inbox.take([arrival(EVENT, "e9"), arrival(ERASURE)], {}) == 2
    assert [record.kind for record in log.read(0, 9)] == [ERASURE]
    assert inbox._connection.execute("SELECT count(*) FROM foreign_erasures").fetchone() == (0,)


LATE = [
    arrival(EVENT, "late"),
    arrival(PROFILE, "late profile"),
    arrival(EVENT, "at its time", time_ms=10),
    arrival(EVENT, "back", time_ms=11),
    arrival(EVENT, "other", key="w"),
]


def ids(log: SqliteLog) -> list[str]:
    return [record.record_id for record in log.read(0, 99) if record.kind != ERASURE]


@pytest.mark.parametrize("is_own", [True, False])
def test_what_another_machine_took_before_an_erasure_is_left_out(
    log: SqliteLog, outbox: SqliteOutbox, inbox: SqliteInbox, is_own: bool
) -> None:
    if is_own:
        list(log.import_records([[NewRecord(ERASURE, "v", "", b"")]], 10))
    else:
        inbox.take([arrival(ERASURE, time_ms=10)], {})
    inbox.take([arrival(ERASURE, time_ms=8), *LATE], {})
    assert ids(log) == ["back", "other"]
    assert outbox.trim(younger(99), 99) > 0
    assert inbox.take([arrival(EVENT, "later still"), arrival(EVENT, "back again", time_ms=12)], {}) == 1
    assert ids(log)[-1] == "back again"


def test_log_that_was_begun_before_knows_its_erasures(log: SqliteLog, path: Path) -> None:
    list(log.import_records([[NewRecord(ERASURE, "v", "", b"")]], 10))
    with closing(connect(path)) as connection:
        connection.execute("DROP TABLE erasure_times")
        connection.execute("DROP TABLE erasures_lost")
        connection.execute("PRAGMA user_version = 1")
    with closing(SqliteInbox(path)) as inbox:
        assert inbox.take(LATE, {}) == 2
    with closing(connect(path)) as connection:  # it may have trimmed others, as far as anybody knows
        assert connection.execute("SELECT until_ms FROM erasures_lost").fetchall() == [(10,)]


def test_a_young_record_ends_what_is_trimmed_though_older_ones_follow(log: SqliteLog, outbox: SqliteOutbox) -> None:
    for start, time_ms in enumerate((1, 100, 1, 100)):
        write(log, 1, time_ms=time_ms, start=start)
    assert [outbox.trim(younger(50), 9), outbox.trim(younger(50), 9)] == [1, 0]
    assert [record.offset for record in log.read(0, 9)] == [2, 3, 4]
    assert outbox.trim(Kept(9, range(50, 90)), 9) == 2, "no clock is so far ahead: what it took ends with the rest"


def login(event_id: str, visitor_id: str) -> NewRecord:
    return event(event_id, "a", visitor_id=visitor_id, user_id="ann")


def test_anonymous_ids_outlive_the_events_that_are_trimmed(log: SqliteLog, outbox: SqliteOutbox) -> None:
    others = [event("e3", "a", visitor_id="ann"), event("e4", user_id="bob"), NewRecord(EVENT, "ann", "e5", b"\xff")]
    list(log.import_records([[login("e1", "phone"), login("e2", "laptop"), *others]], 1))
    list(log.import_records([[login("e6", "phone")]], 5))
    assert outbox.trim(younger(5), 6) == 5
    assert [log.anonymous_ids(one) for one in ("ann", "bob", "phone")] == [{"phone", "laptop"}, {"v"}, set()]
    write(log, 1, time_ms=9)
    assert outbox.trim(younger(9), 6) == 1
    list(log.import_records([[NewRecord(ERASURE, "ann", "", b"")]], 4))
    log.erase("ann")
    assert (log.anonymous_ids("ann"), log.anonymous_ids("bob")) == ({"phone"}, {"v"}), "what came after stays"
    list(log.import_records([[NewRecord(ERASURE, "ann", "", b"")]], 6))
    log.erase("ann")
    assert log.anonymous_ids("ann") == set()


def test_users_whose_events_were_trimmed_are_nobodys_anonymous_past(log: SqliteLog, outbox: SqliteOutbox) -> None:
    bob = event("e1", "a", visitor_id="", user_id="bob")
    list(log.import_records([[bob, event("e2", "a", visitor_id="bob", user_id="ann"), login("e3", "phone")]], 1))
    assert outbox.trim(younger(5), 3) == 2
    assert log.anonymous_ids("ann") == {"phone"}


def test_profiles_outlive_trimming_until_their_visitor_is_forgotten(log: SqliteLog, outbox: SqliteOutbox) -> None:
    kinds = ((PROFILE, "v", b"1"), (PROFILE, "w", b"2"), (STATED, "v", b"3"))
    stated = [NewRecord(kind, key, "", payload) for kind, key, payload in kinds]
    list(log.import_records([[*stated, event("e1", "a")]], 1))
    before = log.statements(0, 9)
    assert outbox.trim(younger(5), 2) == 2
    assert log.statements(0, 9) == before
    assert [record.offset for record in log.statements(0, 2)] == [1, 2]
    assert [record.payload for record in log.statements(1, 9)] == [b"2", b"3"]
    list(log.import_records([[NewRecord(ERASURE, "v", "", b""), NewRecord(PROFILE, "v", "", b"4")]], 6))
    log.erase("v")
    assert [record.payload for record in log.statements(0, 9)] == [b"2", b"4"]
