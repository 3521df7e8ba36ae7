"""Machines of which one was cut off when it erased a visitor: what others took since stays, everywhere alike."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_rs import Engine, NotFoundError
from server.ports import Arrival, EventLog, Kept
from server.settings import load_settings
from server.workers.replica import Replica
from server.workers.statements import statement_records
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE
from tests.machines import VISITORS, Machine, exchange, kept, three_machines
from tests.table_shop import erasure, event, profile


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    yield from three_machines(tmp_path)


class Served:
    """A machine with an engine that follows its log from the beginning."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.folder = folder
        self.replica, self.engine = replica_of(machine.log, folder)

    def known(self) -> list[str]:
        """Return what its engine knows of the visitors, which is what an engine that reads the whole log knows."""
        self.replica.follow()
        anew, engine = replica_of(self.machine.log, self.folder)
        anew.follow()
        found = [known(self.engine, visitor_id) for visitor_id in VISITORS]
        assert found == [known(engine, visitor_id) for visitor_id in VISITORS]
        return found


def replica_of(log: EventLog, folder: Path) -> tuple[Replica, Engine]:
    engine = Engine()
    return Replica(engine, log, load_settings(None, {"data_dir": folder})), engine


def known(engine: Engine, visitor_id: str) -> str:
    try:
        found = GetProfileResponse.FromString(engine.profile(visitor_id))
    except NotFoundError:
        return ""
    items = sorted(one.item_id for one in found.live_state.recent)
    traits = [trait.value for trait in found.profile.traits]
    return " ".join([*items, *traits, *(str(one.granted) for one in found.profile.consents)])


@pytest.mark.parametrize("is_shipped", [True, False])
def test_what_was_acknowledged_after_a_late_erasure_stays_on_all_machines(
    machines: list[Machine], tmp_path: Path, *, is_shipped: bool
) -> None:
    here, there, third = machines
    served = [Served(machine, tmp_path / f"data{number}") for number, machine in enumerate(machines)]
    stream: list[Arrival] = []
    there.write(event("e1", "old", visitor_id="u"), profile("u", {"size": "M"}, training=True), time_ms=1_000)
    exchange(stream, *machines)
    assert [one.known()[0] for one in served] == ["old M True"] * 3
    here.write(erasure("u"), time_ms=2_000)
    here.log.erase("u")
    there.write(event("e2", "new", visitor_id="u"), profile("u", {"city": "Ulm"}, training=False), time_ms=3_000)
    assert served[1].known()[0] == "new old M Ulm False"
    if is_shipped:
        exchange(stream, there, third)
    exchange(stream, here, there, third)
    assert [one.known()[0] for one in served] == ["new Ulm False"] * 3
    assert [kept(machine) for machine in machines] == [[("e2", 3_000), ("stated", 3_000)]] * 3
    exchange(stream, *machines)
    assert [one.known()[0] for one in served] == ["new Ulm False"] * 3


def test_a_denial_of_the_browser_binds_who_logged_in_there_after_the_erasure(
    machines: list[Machine], tmp_path: Path
) -> None:
    here, there, _ = machines
    served = Served(there, tmp_path / "data")
    stream: list[Arrival] = []
    here.write(erasure("u"), time_ms=2_000)
    there.write(profile("phone", training=False), event("e1", "a", visitor_id="phone", user_id="u"), time_ms=3_000)
    assert served.known() == ["a False", "False"]
    exchange(stream, *machines)
    assert served.known() == ["a False", "False"]


def test_what_was_stated_after_a_late_erasure_and_trimmed_before_it_came_stays(
    machines: list[Machine], tmp_path: Path
) -> None:
    here, there, _ = machines
    served = Served(there, tmp_path / "data")
    stream: list[Arrival] = []
    there.write(profile("u", {"size": "M"}), time_ms=1_000)
    there.write(profile("u", training=False), event("e1", "new", visitor_id="u"), time_ms=3_000)
    there.write(event("w1", "a", visitor_id="w"), time_ms=3_000)
    assert served.known()[0] == "new M False"
    assert there.outbox.trim(Kept(2, range(2**60, 2**61)), 2) == 2
    here.write(erasure("u"), time_ms=2_000)
    exchange(stream, here, there)
    served.replica.follow()
    assert known(served.engine, "u") == "new False"
    assert [one.time_ms for one in there.log.statements(0, 9)] == [3_000]


def test_what_a_browser_did_before_an_erasure_does_not_come_back_with_its_user(
    machines: list[Machine], tmp_path: Path
) -> None:
    here, there, _ = machines
    served = Served(here, tmp_path / "data")
    stream: list[Arrival] = []
    there.write(event("e1", "old", visitor_id="phone"), time_ms=1_000)
    exchange(stream, here, there)
    there.write(event("e2", "login", visitor_id="phone", user_id="u"), time_ms=2_000)
    here.write(erasure("u"), time_ms=3_000)
    there.write(event("e3", "new", visitor_id="phone"), time_ms=4_000)
    there.write(event("e4", "back", visitor_id="phone", user_id="u"), time_ms=5_000)
    exchange(stream, there, here)
    assert served.known()[0] == "back new"
    for _ in range(2):
        exchange(stream, there, here)
    assert [kept(machine) for machine in (here, there)] == [[("e3", 4_000), ("e4", 5_000)]] * 2
    assert served.known()[0] == "back new"


@pytest.mark.parametrize("is_told", [True, False])
def test_what_a_visitor_who_was_back_took_over_goes_when_its_login_comes_late(
    machines: list[Machine], tmp_path: Path, *, is_told: bool
) -> None:
    here, there, third = machines
    served = Served(here, tmp_path / "data")
    stream: list[Arrival] = []
    here.write(event("e1", "old", visitor_id="phone"), time_ms=1_000)
    there.write(event("e2", "login", visitor_id="phone", user_id="u"), time_ms=1_500)
    third.write(erasure("u"), time_ms=2_000)
    exchange(stream, third, here)
    here.write(event("e3", "back", visitor_id="phone", user_id="u"), time_ms=3_000)
    assert served.known()[0] == "back old"
    here.write(event("e4", "other", visitor_id="phone", user_id="v"), erasure("phone", "v"), time_ms=3_500)
    if is_told:
        there.follow(stream, len(stream))  # so it forgets the login before it ships it, and tells of the browser
    exchange(stream, there, here)
    assert served.known() == ["back", ""]


def test_what_a_visitor_denied_and_another_browser_gave_it_since_stays_when_its_login_comes_late(
    machines: list[Machine], tmp_path: Path
) -> None:
    here, there, third = machines
    served = Served(here, tmp_path / "data")
    stream: list[Arrival] = []
    there.write(event("e1", "login", visitor_id="phone", user_id="u"), time_ms=1_500)
    third.write(erasure("u"), time_ms=2_000)
    exchange(stream, third, here)
    here.write(profile("tablet", {"size": "M"}), event("e2", "seen", visitor_id="tablet"), time_ms=2_500)
    here.write(event("e3", "back", visitor_id="tablet", user_id="u"), time_ms=3_000)
    exchange(stream, there, here)
    assert served.known()[0] == "back seen M"
    here.write(event("e4", "new", visitor_id="phone"), profile("phone", training=False), time_ms=3_000)
    here.write(event("e5", "again", visitor_id="phone", user_id="u"), time_ms=3_000)
    assert served.known()[0] == "again back new seen M False"


def test_a_denial_that_bound_who_was_back_stays_when_its_login_comes_late(
    machines: list[Machine], tmp_path: Path
) -> None:
    here, there, third = machines
    served = Served(here, tmp_path / "data")
    stream: list[Arrival] = []
    here.write(profile("phone", training=False), event("e1", "old", visitor_id="phone"), time_ms=1_000)
    there.write(event("e2", "login", visitor_id="phone", user_id="u"), time_ms=1_500)
    third.write(erasure("u"), time_ms=2_000)
    exchange(stream, third, here)
    here.write(event("e3", "back", visitor_id="phone", user_id="u"), time_ms=3_000)
    assert served.known()[0] == "back old False"
    exchange(stream, there, here)
    served.replica.follow()
    assert known(served.engine, "u") == "back False"


def recorded(served: Served) -> None:
    """Let a machine write down what its users took over of browsers."""
    served.replica.follow()
    for record, time_ms in statement_records(served.engine):
        served.machine.write(record, time_ms=time_ms)


@pytest.mark.parametrize("is_linked", [True, False])
def test_what_a_browser_granted_before_an_erasure_is_nothing_of_a_user_who_was_back_before_it_came(
    machines: list[Machine], tmp_path: Path, *, is_linked: bool
) -> None:
    """The machine that the erasure has not reached writes it down as the user's, after the erasure was given."""
    here, there, _ = machines
    served = [Served(machine, tmp_path / f"data{number}") for number, machine in enumerate(machines)]
    stream: list[Arrival] = []
    here.write(event("e1", "old", visitor_id="phone", user_id="u") if is_linked else event("e1"), time_ms=1_000)
    here.write(profile("phone", training=True), time_ms=1_100)
    exchange(stream, *machines)
    act(there, "erase", "u", 2_000)
    here.write(event("e2", "back", visitor_id="phone", user_id="u"), time_ms=3_000)
    recorded(served[0])
    assert served[0].known()[0].endswith("True")
    for _ in range(2):
        exchange(stream, there, here, machines[2])
        for one in served:
            recorded(one)
    assert [one.known() for one in served] == [["back", ""]] * 3
    of_browser = [] if is_linked else [("stated", 1_100)]
    assert [kept(machine) for machine in machines] == [[("e2", 3_000), *of_browser]] * 3
    here.write(profile("phone", training=True), event("e3", visitor_id="phone", user_id="u"), time_ms=4_000)
    recorded(served[0])
    exchange(stream, *machines)
    assert [one.known()[0] for one in served] == ["back True"] * 3, "what it grants now is"


def test_an_older_erasure_of_the_browser_hides_no_login_from_that_of_its_user(machines: list[Machine]) -> None:
    here, there, _ = machines
    stream: list[Arrival] = []
    here.write(erasure("phone"), time_ms=500)
    there.write(event("e1", "a", visitor_id="phone"), time_ms=600)
    there.write(event("e2", "a", visitor_id="phone", user_id="u"), time_ms=700)
    here.write(erasure("u"), time_ms=2_000)
    exchange(stream, here)
    there.follow(stream, len(stream))
    assert kept(there) == []
    exchange(stream, there, *machines)
    assert [kept(machine) for machine in machines] == [[]] * 3


visits = st.tuples(st.just("visit"), st.sampled_from(VISITORS))
logins = st.tuples(st.just("login"), st.just("u"))
answers = st.tuples(st.sampled_from(["deny", "grant"]), st.sampled_from(VISITORS))
erasures = st.tuples(st.just("erase"), st.sampled_from(VISITORS))
shipments = st.tuples(st.just("ship"), st.just(""))


def steps(*kinds: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[list[tuple[int, tuple[str, str]]]]:
    """Return what happens one after the other: on which machine, what, and to whom."""
    return st.lists(st.tuples(st.integers(0, 2), st.one_of(*kinds)), max_size=16)


def act(machine: Machine, what: str, visitor_id: str, time_ms: int) -> None:
    name = f"e{time_ms}"
    if what == "visit":
        machine.write(event(name, name, visitor_id=visitor_id), time_ms=time_ms)
    elif what == "login":
        machine.write(event(name, name, visitor_id="phone", user_id=visitor_id), time_ms=time_ms)
    elif what == "erase":
        keys = [visitor_id, *sorted(machine.log.anonymous_ids(visitor_id))]
        told = [erasure(key, visitor_id if key != visitor_id else "") for key in reversed(keys)]
        machine.write(*told, time_ms=time_ms)
        for key in reversed(keys):
            machine.log.erase(key)
    else:
        machine.write(profile(visitor_id, training=what == "grant"), time_ms=time_ms)


def play(machines: list[Machine], taken: list[tuple[int, tuple[str, str]]], folder: Path) -> list[Served]:
    """Let it happen, then let all hear of all; return the machines with engines that followed throughout."""
    served = [Served(machine, folder / f"data{number}") for number, machine in enumerate(machines)]
    stream: list[Arrival] = []
    for number, (where, (what, visitor_id)) in enumerate(taken, 1):
        if what == "ship":
            exchange(stream, machines[where])
        else:
            act(machines[where], what, visitor_id, 10 * number)
        for one in served:
            one.replica.follow()
    for _ in range(3):  # what a machine finds to be erased beside goes to the others in the next round
        exchange(stream, *machines)
    return served


def expected(machines: list[Machine], taken: list[tuple[int, tuple[str, str]]]) -> list[tuple[str, int]]:
    """Return what logs shall have: all that was taken after the newest erasure of each visitor.

    Erasures are those that somebody asked for, which are in the logs, and at least those that logins demand.
    """
    erased_ms = {"u": 0, "phone": owed_ms(taken)}
    for record in (record for machine in machines for record in machine.records()):
        if record.kind == RECORD_KIND_ERASURE:
            erased_ms[record.key] = max(record.time_ms, erased_ms[record.key])
    acts = [(10 * number, *act) for number, (_, act) in enumerate(taken, 1)]
    names = {"visit": "e{}", "login": "e{}", "deny": "stated", "grant": "stated"}
    return sorted(
        (names[what].format(time_ms), time_ms)
        for time_ms, what, visitor_id in acts
        if what in names and time_ms > erased_ms.get(visitor_id, 0)
    )


def owed_ms(taken: list[tuple[int, tuple[str, str]]]) -> int:
    """Return up to when the phone is to be forgotten with the user: its first erasure after the last such login."""
    acts = [(10 * number, act) for number, (_, act) in enumerate(taken, 1)]
    erased = [time_ms for time_ms, act in acts if act == ("erase", "u")]
    logins = [time_ms for time_ms, act in acts if act == ("login", "u")]
    return max((next((one for one in erased if one > login), 0) for login in logins), default=0)


@given(steps(visits, answers, erasures, shipments))
@settings(max_examples=40, deadline=None)
def test_machines_that_are_cut_off_at_any_time_keep_what_came_after(taken: list[tuple[int, tuple[str, str]]]) -> None:
    with TemporaryDirectory() as name:
        for machines in three_machines(Path(name)):
            served = play(machines, taken, Path(name))
            assert len({tuple(one.known()) for one in served}) == 1
            assert [kept(machine) for machine in machines] == [expected(machines, taken)] * 3


others = st.tuples(st.just("login"), st.just("v"))


@given(steps(visits, logins, others, st.just(("erase", "u")), shipments))
@settings(max_examples=40, deadline=None)
def test_no_engine_knows_what_was_taken_before_an_erasure(taken: list[tuple[int, tuple[str, str]]]) -> None:
    with TemporaryDirectory() as name:
        for machines in three_machines(Path(name)):
            served = play(machines, taken, Path(name))
            left = {name for name, _ in expected(machines, taken)}
            assert [set(" ".join(one.known()).split()) - left for one in served] == [set()] * 3


@given(steps(visits, logins, answers, erasures, shipments))
@settings(max_examples=40, deadline=None)
def test_logs_of_machines_between_which_somebody_logs_in_do_so_too(taken: list[tuple[int, tuple[str, str]]]) -> None:
    with TemporaryDirectory() as name:
        for machines in three_machines(Path(name)):
            play(machines, taken, Path(name))
            assert [kept(machine) for machine in machines] == [expected(machines, taken)] * 3
