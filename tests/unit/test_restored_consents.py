"""A machine that is made again of the tables, in which answers come before events, says what the old one says."""

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from core_rs import Engine, NotFoundError
from server.ports import LogRecord, NewRecord
from server.workers.rows import Row, known_stated, profile_row
from server.workers.statements import statement_records
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse
from shopkeeper.v1.record_pb2 import RECORD_KIND_STATED
from tests.table_shop import event, profile

BROWSERS: Final = ("phone", "laptop")
USERS: Final = ("ann", "bob")

answers = st.tuples(st.sampled_from([*BROWSERS, *USERS]), st.booleans())
logins = st.tuples(st.sampled_from(BROWSERS), st.sampled_from(USERS))
steps = st.lists(st.one_of(answers, logins), max_size=14)


class Machine:
    """An engine with the rows that tables have of what it was told."""

    def __init__(self) -> None:
        self.engine = Engine(consent_default=False)
        self.rows: dict[str, Row] = {}
        self.logins: list[tuple[NewRecord, int]] = []

    def tell(self, record: NewRecord, time_ms: int) -> None:
        offset = self.engine.offset + 1
        self.engine.apply([(offset, record.kind, time_ms, record.payload)])
        if record.record_id.startswith("login"):
            self.logins.append((record, time_ms))
        else:
            told = LogRecord(offset, record.kind, time_ms, record.key, "", record.payload)
            self.rows[record.key] = profile_row(told, self.rows.get(record.key)) or self.rows[record.key]

    def step(self, who: str, what: str | bool, time_ms: int) -> None:
        if isinstance(what, bool):
            self.tell(profile(who, training=what), time_ms)
        else:
            self.tell(event(f"login{time_ms}", "a", visitor_id=who, user_id=what), time_ms)
        for record, recorded_ms in statement_records(self.engine):
            self.tell(record, recorded_ms)

    def restored(self) -> "Machine":
        made = Machine()
        for key, row in sorted(self.rows.items()):
            made.tell(NewRecord(RECORD_KIND_STATED, key, "", known_stated(row["stated"], row["payload"])), 0)
        for record, time_ms in self.logins:
            made.tell(record, time_ms)
        return made

    def answer(self, user_id: str) -> bool | None:
        try:
            found = GetProfileResponse.FromString(self.engine.profile(user_id))
        except NotFoundError:
            return None
        return next((consent.granted for consent in found.profile.consents), None)

    def own(self, user_id: str) -> bool | None:
        row = self.rows.get(user_id)
        return None if row is None else row["training"]


@given(steps)
@settings(max_examples=400)
def test_a_restored_machine_denies_and_grants_as_the_old_one_does(taken: list[tuple[str, str | bool]]) -> None:
    old = Machine()
    for time_ms, (who, what) in enumerate(taken, 1):
        old.step(who, what, 10 * time_ms)
    new = old.restored()
    for user_id in USERS:
        assert old.own(user_id) == old.answer(user_id) == new.answer(user_id)
    for browser in BROWSERS:
        assert new.answer(browser) == old.answer(browser)
    assert statement_records(new.engine) == [], "what is in the tables is not recorded again"
