"""A machine may read a login before what the anonymous visitor did: the user is the same on all machines."""

from itertools import permutations
from pathlib import Path

import pytest

from core_rs import Engine, NotFoundError
from shopkeeper.v1 import record_pb2
from shopkeeper.v1.common_pb2 import CONSENT_PURPOSE_PERSONALIZATION, Consent, Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_ADD_TO_CART, EVENT_TYPE_VIEW, Event, EventItem
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse, Profile

NOW = 1_700_000_000_000
Step = tuple[int, int, record_pb2.ItemChange | Event | Profile | record_pb2.Erasure]
"""Kind, time of the log in milliseconds, message."""


def event(item: str, at_ms: int, *, waited_ms: int = 0, user: str = "") -> Step:
    kind = EVENT_TYPE_ADD_TO_CART if user else EVENT_TYPE_VIEW
    context = Context(visitor_id="phone", user_id=user)
    made = Event(event_type=kind, context=context, items=[EventItem(item_id=item)])
    made.event_time.FromMilliseconds(at_ms - waited_ms)
    return record_pb2.RECORD_KIND_EVENT, at_ms, made


def denial(at_ms: int) -> Step:
    consent = Consent(purpose=CONSENT_PURPOSE_PERSONALIZATION, granted=False)
    return record_pb2.RECORD_KIND_PROFILE, at_ms, Profile(visitor_id="phone", consents=[consent])


def engine_of(*steps: Step) -> Engine:
    """Return an engine that read a catalogue and then `steps`, in this order."""
    items = [record_pb2.ItemChange(item=Item(item_id=item, category_path=[item])) for item in ("a", "b", "c")]
    engine = Engine()
    records = [(record_pb2.RECORD_KIND_ITEM, 0, item) for item in items] + list(steps)
    engine.apply([(n, kind, at_ms, message.SerializeToString()) for n, (kind, at_ms, message) in enumerate(records, 1)])
    return engine


def profile(engine: Engine, key: str) -> GetProfileResponse:
    return GetProfileResponse.FromString(engine.profile(key))


BEFORE = (event("a", NOW - 2_000), denial(NOW - 1_000), event("b", NOW, waited_ms=500))
LOGIN = event("c", NOW, user="ann")


@pytest.mark.parametrize("steps", list(permutations((*BEFORE, LOGIN))))
def test_what_came_before_a_login_is_the_users_in_any_order(steps: tuple[Step, ...]) -> None:
    engine = engine_of(*steps)
    found = profile(engine, "ann")
    assert [one.granted for one in found.profile.consents] == [False]
    assert found.live_state.event_count == 3
    assert [one.item_id for one in found.live_state.recent] == ["c", "b", "a"]
    assert {one.name for one in found.live_state.categories} == {"a", "b", "c"}
    with pytest.raises(NotFoundError):
        engine.profile("phone")


def test_what_comes_after_a_login_is_another_visitor_until_the_next() -> None:
    later = event("b", NOW + 60_000)
    engine = engine_of(*BEFORE, LOGIN, later)
    assert profile(engine, "phone").live_state.event_count == 1
    again = engine_of(*BEFORE, LOGIN, later, event("a", NOW + 90_000, user="ann"))
    assert profile(again, "ann").live_state.event_count == 5


def test_a_login_is_known_after_a_restart_and_forgotten_with_the_user(tmp_path: Path) -> None:
    path = tmp_path / "state.snapshot"
    engine_of(LOGIN).save_snapshot(str(path))
    restarted = Engine()
    restarted.load_snapshot(str(path))
    kind, at_ms, message = BEFORE[0]
    restarted.apply([(restarted.offset + 1, kind, at_ms, message.SerializeToString())])
    assert profile(restarted, "ann").live_state.event_count == 2
    erasure = record_pb2.Erasure(visitor_id="ann")
    erased = engine_of(LOGIN, (record_pb2.RECORD_KIND_ERASURE, NOW, erasure), BEFORE[0])
    with pytest.raises(NotFoundError):
        erased.profile("ann")
