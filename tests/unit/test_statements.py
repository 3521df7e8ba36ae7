"""What users took over from browsers becomes their own record, once, and machines and tables say the same of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from core_rs import Engine, InvalidRequestError
from server.adapters.memory_log import MemoryLog
from server.ports import Arrival, LogRecord, NewRecord
from server.workers.rows import Row, profile_row
from server.workers.statements import StatementRecorder, statement_record, statement_records
from shopkeeper.v1.common_pb2 import Consent
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse, Profile
from shopkeeper.v1.record_pb2 import RECORD_KIND_STATED, Stated
from tests.machines import Machine, three_machines
from tests.table_shop import TRAINING, erasure, event, profile, wait_until

VISITOR, DENIED_MS, LOGIN_MS = "ann", 3, 7


def denial(time_ms: int, bound_ms: int = LOGIN_MS) -> NewRecord:
    denials = [Stated.Denial(purpose=TRAINING, time_ms=time_ms, bound_ms=bound_ms)]
    return statement_record(
        VISITOR, bound_ms, Stated(visitor_id=VISITOR, denials=denials, is_user=True).SerializeToString()
    )


def login(event_id: str = "login", user_id: str = VISITOR) -> NewRecord:
    return event(event_id, "a", visitor_id="phone", user_id=user_id)


def follow(engine: Engine, log: MemoryLog) -> None:
    engine.apply([(one.offset, one.kind, one.time_ms, one.payload) for one in log.read(engine.offset, 10_000)])


def stated(log: MemoryLog) -> list[LogRecord]:
    return [record for record in log.read(0, 10_000) if record.kind == RECORD_KIND_STATED]


def answers(engine: Engine, visitor_id: str = VISITOR) -> list[bool]:
    found = GetProfileResponse.FromString(engine.profile(visitor_id))
    return [consent.granted for consent in found.profile.consents]


class Shop:
    """A log, the engine that follows it, and the recorder."""

    def __init__(self) -> None:
        self.log, self.engine = MemoryLog(), Engine()
        self.log.on_commit(lambda _: follow(self.engine, self.log))
        self.recorder = StatementRecorder(self.engine, self.log)
        self.log.append_later([profile("phone", training=False)], DENIED_MS)
        self.log.append_later([login()], LOGIN_MS)


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_denial_taken_over_is_recorded_once_with_the_time_of_its_event(shop: Shop) -> None:
    assert [shop.recorder.record(), shop.recorder.record()] == [1, 0]
    _, key, record_id, payload = denial(DENIED_MS)
    assert [record[2:] for record in stated(shop.log)] == [(LOGIN_MS, key, record_id, payload)]
    shop.log.append_later([profile(VISITOR, training=True), login("later")], 20)
    assert (shop.recorder.record(), answers(shop.engine)) == (0, [True])


def test_a_grant_taken_over_is_recorded_once_with_the_time_at_which_it_was_given(shop: Shop) -> None:
    shop.log.append_later([profile("tablet", training=True)], 10)
    shop.log.append_later([event("bob's", "a", visitor_id="tablet", user_id="bob")], 12)
    assert [shop.recorder.record(), shop.recorder.record()] == [2, 0]
    _, bobs = stated(shop.log)
    grant = Stated.Answer(consent=Consent(purpose=TRAINING, granted=True))
    assert (bobs.time_ms, Stated.FromString(bobs.payload)) == (
        10,
        Stated(visitor_id="bob", answers=[grant], is_user=True),
    )


def test_what_a_full_queue_refused_comes_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shop.log, "append_later", lambda *_: False)
        assert shop.recorder.record() == 0
    assert stated(shop.log) == []
    assert [shop.recorder.record(), len(stated(shop.log))] == [1, 1]


def test_who_is_forgotten_before_the_record_comes_stays_forgotten(shop: Shop) -> None:
    late = shop.engine.unrecorded_statements(9)
    shop.log.append_later([erasure(VISITOR)], LOGIN_MS)
    assert (shop.recorder.record(), len(late)) == (0, 1)
    shop.log.append_later([denial(DENIED_MS)], LOGIN_MS)
    assert stated(shop.log) == []
    shop.log.append_later([login("back")], LOGIN_MS + 1)
    assert [shop.recorder.record(), len(stated(shop.log))] == [1, 1]


def test_each_purpose_and_user_has_a_record_with_its_time(shop: Shop) -> None:
    shop.log.append_later([login("bob's", "bob")], LOGIN_MS + 1)
    assert [(record.key, time_ms) for record, time_ms in statement_records(shop.engine)] == [
        (VISITOR, LOGIN_MS),
        ("bob", LOGIN_MS + 1),
    ]


def test_the_thread_records_and_ends(shop: Shop) -> None:
    shop.recorder.start()
    wait_until(lambda: len(stated(shop.log)) == 1)
    shop.recorder.stop()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    yield from three_machines(tmp_path)


@pytest.mark.parametrize("grant_ms", [None, DENIED_MS - 1, DENIED_MS, DENIED_MS + 1, LOGIN_MS + 1])
def test_machines_that_record_it_both_or_late_agree(machines: list[Machine], grant_ms: int | None) -> None:
    """The one that lags has neither the erasure of the browser nor the grant when it writes the record."""
    here, there, new = machines
    stream: list[Arrival] = []

    def ship(*senders: Machine) -> None:
        for machine in senders:
            for _ in range(9):
                machine.ship(stream)

    here.write(profile("phone", training=False), time_ms=DENIED_MS)
    here.write(login(), time_ms=LOGIN_MS)
    ship(here)
    for machine in (here, there):
        machine.follow(stream, 9)
        ((_, time_ms, payload),) = machine.engine().unrecorded_statements(9)
        machine.write(statement_record(VISITOR, time_ms, payload), time_ms=time_ms)
    if grant_ms is not None:
        here.write(profile(VISITOR, training=True), time_ms=grant_ms)
    here.write(erasure("phone"), time_ms=LOGIN_MS + 1)
    ship(here, there)
    for machine in (here, there, new):
        machine.follow(stream, 99)
    wanted = grant_ms is not None and grant_ms > DENIED_MS
    assert [answers(machine.engine()) for machine in machines] == [[wanted]] * 3
    kinds = [[record.kind for record in machine.records()] for machine in machines]
    assert [found.count(RECORD_KIND_STATED) for found in kinds] == [1] * 3


changes = st.one_of(
    st.tuples(st.sampled_from(["profile"]), st.booleans(), st.integers(1, 9)),
    st.tuples(st.sampled_from(["denial"]), st.just(value=False), st.integers(1, 9)),
)


@given(st.lists(changes, min_size=1, max_size=8))
def test_tables_say_what_the_engine_says(steps: list[tuple[str, bool, int]]) -> None:
    engine, row = Engine(), None
    for offset, (kind, granted, time_ms) in enumerate(steps, 1):
        made = denial(time_ms) if kind == "denial" else profile(VISITOR, {"size": str(time_ms)}, training=granted)
        engine.apply([(offset, made.kind, time_ms, made.payload)])
        row = profile_row(LogRecord(offset, made.kind, time_ms, VISITOR, "", made.payload), row)
    assert row is not None
    assert GetProfileResponse.FromString(engine.profile(VISITOR)).profile == Profile.FromString(row["payload"])
    assert [row["training"]] == answers(engine)


@given(st.permutations([5, 30, 5, 12]), st.integers(0, 4), st.integers(1, 40))
def test_denials_in_any_order_around_a_grant_give_the_same_row(times: list[int], place: int, grant_ms: int) -> None:
    assume(grant_ms != 31)  # a grant at the time of the login is later where that is known
    made = [(time_ms, denial(time_ms, time_ms + 1)) for time_ms in times]
    made.insert(place, (grant_ms, profile(VISITOR, training=True)))
    row: Row | None = None
    for offset, (time_ms, record) in enumerate(made, 1):
        row = profile_row(LogRecord(offset, record.kind, time_ms, VISITOR, "", record.payload), row)
    assert row is not None
    assert Stated.FromString(row["stated"]).denials == [Stated.Denial(purpose=TRAINING, time_ms=30, bound_ms=31)]
    assert row["training"] == (grant_ms > max(times))


def test_a_row_of_older_tables_has_answers_of_an_unknown_time() -> None:
    payload = Profile.FromString(profile(VISITOR, {"size": "M"}, training=True).payload).SerializeToString()
    old = {"log_offset": 1, "stated": b"", "payload": payload}
    row = profile_row(LogRecord(2, RECORD_KIND_STATED, 9, VISITOR, "", denial(DENIED_MS).payload), old)
    assert row is not None
    assert (row["training"], row["trait_values"], row["log_offset"]) == (False, ["M"], 2)


def test_what_states_nothing_is_refused() -> None:
    for kind, payload in ((1, b""), (99, b""), (RECORD_KIND_STATED, b"\xff")):
        with pytest.raises(InvalidRequestError):
            profile_row(LogRecord(1, kind, 9, VISITOR, "", payload), None)
