"""The Python face of the core: errors, arrays, repeats, snapshots, garbage."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import core_rs
from core_rs import CorruptError, Engine, EngineError, InternalError, InvalidRequestError, NotFoundError
from shopkeeper.v1 import event_service_pb2, record_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, EVENT_TYPE_SEARCH, EVENT_TYPE_VIEW, Event, EventItem
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.profile_service_pb2 import GetProfileResponse
from shopkeeper.v1.recommendation_service_pb2 import (
    ExplainResponse,
    PlacementRequest,
    RecommendRequest,
    RecommendResponse,
)

NOW = 1_700_000_000_000
Record = tuple[int, int, int, bytes]


def view(event_id: str, visitor: str, *items: str) -> Event:
    lines = [EventItem(item_id=item) for item in items]
    return Event(event_id=event_id, event_type=EVENT_TYPE_VIEW, context=Context(visitor_id=visitor), items=lines)


def shop_log() -> list[Record]:
    items = [record_pb2.ItemChange(item=Item(item_id=f"i{n}", brand=f"b{n % 3}")) for n in range(20)]
    placement = Placement(placement_id="home", sources=[SourceUse(source="popular"), SourceUse(source="trending")])
    events = [view(f"e{n}", f"v{n % 4}", f"i{n * n % 20}", "i3") for n in range(40)]
    messages = [
        *((record_pb2.RECORD_KIND_ITEM, item) for item in items),
        (record_pb2.RECORD_KIND_DOCUMENT, record_pb2.DocumentChange(placement=placement)),
        *((record_pb2.RECORD_KIND_EVENT, event) for event in events),
    ]
    return [(offset, kind, NOW, message.SerializeToString()) for offset, (kind, message) in enumerate(messages, 1)]


@pytest.fixture
def engine() -> Engine:
    engine = Engine(token_key=b"key")
    engine.apply(shop_log())
    return engine


def request(visitor: str = "v1", placement: str = "home", page_size: int = 5) -> bytes:
    wanted = PlacementRequest(placement_id=placement, page_size=page_size)
    asked = RecommendRequest(request_id="r", context=Context(visitor_id=visitor), placements=[wanted])
    return asked.SerializeToString()


def answer(engine: Engine) -> bytes:
    return engine.finish(engine.begin(request(), NOW), None).response


def test_errors_carry_reason_and_field(engine: Engine) -> None:
    with pytest.raises(InvalidRequestError, match=r"placements\[0\].page_size.* 0 to 500") as invalid:
        engine.begin(request(page_size=-1), NOW)
    assert (invalid.value.reason, invalid.value.field) == ("FIELD_OUT_OF_RANGE", "placements[0].page_size")
    with pytest.raises(NotFoundError) as missing:
        engine.begin(request(placement="none"), NOW)
    assert (missing.value.reason, missing.value.field) == ("PLACEMENT_NOT_FOUND", "placements[0].placement_id")
    with pytest.raises(NotFoundError) as missing:
        engine.item("none")
    assert missing.value.reason == "ITEM_NOT_FOUND"
    with pytest.raises(InvalidRequestError) as malformed:
        engine.prepare_events(b"\xff", NOW)
    assert (malformed.value.reason, malformed.value.field) == ("REQUEST_MALFORMED", "")
    with pytest.raises(EngineError) as unknown:
        core_rs.check_placement(Placement(placement_id="a", sources=[SourceUse(source="x")]).SerializeToString())
    assert unknown.value.field == "placement.sources[0].source"


def test_an_engine_says_which_time_zones_it_knows() -> None:
    Engine(time_zone="America/New_York")
    with pytest.raises(InvalidRequestError, match="Europe/Berlin") as unknown:
        Engine(time_zone="Mars/Olympus")
    assert unknown.value.field == "time_zone"


def test_apply_is_idempotent(engine: Engine) -> None:
    before = (engine.offset, answer(engine), engine.stats())
    assert engine.apply(shop_log()) == 0
    assert (engine.offset, answer(engine), engine.stats()) == before


def test_counts_are_those_of_the_log(engine: Engine) -> None:
    before = engine.counts()
    assert set(before) == {"visitors", "items", "placements", "controls"}
    control = record_pb2.DocumentChange(control={"control_id": "new", "pin": {"item_id": "i1", "position": 1}})
    changes = [
        (record_pb2.RECORD_KIND_EVENT, view("first", "new", "i1").SerializeToString()),
        (record_pb2.RECORD_KIND_DOCUMENT, control.SerializeToString()),
    ]
    engine.apply([(engine.offset + number, kind, NOW, payload) for number, (kind, payload) in enumerate(changes, 1)])
    assert engine.counts() == before | {"visitors": before["visitors"] + 1, "controls": before["controls"] + 1}
    assert engine.counts().items() <= engine.stats().items()


def test_a_record_that_cannot_be_read_is_counted_and_passed_over(engine: Engine) -> None:
    offset = engine.offset
    good = view("last", "v1", "i1").SerializeToString()
    records = [
        (offset + 1, record_pb2.RECORD_KIND_EVENT, NOW, b"\xff\xff"),
        (offset + 2, record_pb2.RECORD_KIND_EVENT, NOW, good),
    ]
    assert engine.apply(records) == 1
    assert engine.offset == offset + 2
    assert engine.stats()["skipped_records"] == 1


def test_the_plan_serves_finish_and_explain_alike(engine: Engine) -> None:
    plan = engine.begin(request(), NOW)
    finished = engine.finish(plan, None, "tired")
    response = RecommendResponse.FromString(finished.response)
    explained = ExplainResponse.FromString(engine.explain(plan, None, "tired"))
    assert explained.response == response
    assert finished.degraded == list(response.degraded)
    assert "tired" in finished.degraded
    assert response.request_id == plan.request_id == "r"
    assert len(response.slates[0].items) == 5
    assert record_pb2.Decision.FromString(finished.decision).request.request_id == "r"
    assert any(name.startswith("source.") for name, _ in finished.stage_us)


def test_ids_of_a_request_that_nothing_is_known_of_are_told(engine: Engine) -> None:
    wanted = PlacementRequest(placement_id="home", anchor_item_ids=["i1", "gone"], exclude_item_ids=["i2", "lost"])
    asked = RecommendRequest(context=Context(visitor_id="v1", cart_item_ids=["left"]), placements=[wanted])
    reply = engine.finish(engine.begin(asked.SerializeToString(), NOW), None).response
    (slate,) = RecommendResponse.FromString(reply).slates
    assert sorted(slate.missing_item_ids) == ["gone", "left", "lost"]


def test_many_plans_are_those_of_each(engine: Engine) -> None:
    wanted = [request(visitor=f"v{number % 5}", page_size=number) for number in range(1, 40)]
    plans = engine.begin_all(wanted, NOW)
    alone = [engine.begin(each, NOW) for each in wanted]
    assert [plan.items.tolist() for plan in plans] == [plan.items.tolist() for plan in alone]
    answers = [[engine.finish(plan, None).response for plan in found] for found in (plans, alone)]
    assert answers[0] == answers[1]
    with pytest.raises(InvalidRequestError, match="page_size"):
        engine.begin_all([*wanted, request(page_size=-1)], NOW)


def test_scores_of_another_shape_are_our_fault(engine: Engine) -> None:
    with pytest.raises(InternalError) as error:
        engine.finish(engine.begin(request(), NOW), np.zeros((3, 2), np.float32))
    assert error.value.reason == "INTERNAL"


def test_events_are_checked_one_by_one(engine: Engine) -> None:
    events = [view("a", "v9", "i1", "new"), view("", "v9", "i1"), view("b", "v9", "i2")]
    batch = engine.prepare_events(event_service_pb2.RecordEventsRequest(events=events).SerializeToString(), NOW)
    assert [(event_id, key) for event_id, key, _ in batch.rows] == [("a", "v9"), ("b", "v9")]
    assert Event.FromString(batch.rows[0][2]) == events[0]
    assert (batch.rejected_count, batch.joined_count, batch.unjoined_count) == (1, 2, 1)
    results = event_service_pb2.RecordEventsResponse.FromString(batch.reply([0, 2])).results
    assert [result.status for result in results] == [1, 3, 3]
    assert [result.reason for result in results] == ["", "FIELD_REQUIRED", "EVENT_ID_CONFLICT"]
    assert [result.field for result in results] == ["", "events[1].event_id", "events[2].event_id"]
    with pytest.raises(InternalError):
        batch.reply([0])


def test_pages_of_items_cover_the_catalogue(engine: Engine) -> None:
    found, start = [], 0
    while True:
        page, start = engine.items(start, 7)
        found += [Item.FromString(item).item_id for item in page]
        if not start:
            break
    assert found == [f"i{n}" for n in range(20)]
    assert Placement.FromString(engine.placement("home")).etag
    assert engine.placements() == [engine.placement("home")]
    assert engine.controls() == []


def test_the_profile_shows_live_state(engine: Engine) -> None:
    profile = GetProfileResponse.FromString(engine.profile("v1"))
    assert profile.profile.visitor_id == "v1"
    assert profile.live_state.event_count == 10
    assert sum(brand.share for brand in profile.live_state.brands) == pytest.approx(1)


def test_a_snapshot_gives_the_same_answers(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "one.snapshot"
    assert engine.save_snapshot(str(path)) == engine.offset
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    other = Engine(token_key=b"key")
    assert other.load_snapshot(str(path)) == engine.offset
    assert answer(other) == answer(engine)
    assert other.profile("v1") == engine.profile("v1")
    other.save_snapshot(str(tmp_path / "two.snapshot"))
    assert (tmp_path / "two.snapshot").read_bytes() == path.read_bytes()


def test_a_damaged_snapshot_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "one.snapshot"
    engine.save_snapshot(str(path))
    before = answer(engine)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError) as error:
        engine.load_snapshot(str(path))
    assert error.value.reason == "CHECKSUM_MISMATCH"
    assert answer(engine) == before
    with pytest.raises(OSError, match="No such file"):
        engine.save_snapshot(str(tmp_path / "none" / "one.snapshot"))


def test_columns_of_encoded_events() -> None:
    rows = core_rs.encode_events(
        ["a", "b"],
        np.array([EVENT_TYPE_PURCHASE, EVENT_TYPE_SEARCH], np.int32),
        np.array([NOW, NOW + 1]),
        ["v", "w"],
        ["", ""],
        ["shop", ""],
        ["", "milk"],
        np.array([0, 2, 2]),
        ["i1", "i2"],
        np.array([0, 2], np.int32),
        np.array([1_500_000, -1]),
        "USD",
    )
    assert [(event_id, key) for event_id, key, _ in rows] == [("a", "v"), ("b", "w")]
    columns = core_rs.event_columns([(7 + n, 0, payload) for n, (_, _, payload) in enumerate(rows)])
    assert columns["event_type"] == ["purchase", "purchase", "search"]
    assert columns["item_id"] == ["i1", "i2", ""]
    assert list(columns["log_offset"]) == [7, 7, 8]
    assert list(columns["time_ms"]) == [NOW, NOW, NOW + 1]
    assert list(columns["quantity"]) == [1, 2, 0]
    np.testing.assert_array_equal(columns["price"], [1.5, np.nan, np.nan])
    with pytest.raises(InvalidRequestError, match="record 3"):
        core_rs.event_columns([(3, 0, b"\xff")])


@given(st.binary(max_size=200))
def test_garbage_never_panics(garbage: bytes) -> None:
    engine = Engine()
    calls = (
        lambda: engine.prepare_events(garbage, NOW),
        lambda: engine.begin(garbage, NOW),
        lambda: engine.begin_all([garbage], NOW),
        lambda: core_rs.check_item(garbage, 0),
        lambda: core_rs.check_profile(garbage),
        lambda: core_rs.check_placement(garbage),
        lambda: core_rs.check_control(garbage),
        lambda: core_rs.event_columns([(1, 0, garbage)]),
    )
    for call in calls:
        try:
            call()
        except InternalError as error:
            raise AssertionError(garbage) from error
        except EngineError:
            pass
    engine.apply([(offset, offset, NOW, garbage) for offset in range(1, 9)])
    assert engine.offset == 8


def test_answers_go_on_while_the_log_is_applied(engine: Engine) -> None:
    offset = engine.offset

    def ask() -> None:
        for _ in range(200):
            answer(engine)

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        for n in range(1, 301):
            payload = view(f"t{n}", f"v{n % 9}", f"i{n % 20}").SerializeToString()
            engine.apply([(offset + n, record_pb2.RECORD_KIND_EVENT, NOW, payload)])
    for asked in asking:
        asked.result()
    assert engine.offset == offset + 300


def test_features_are_a_read_only_view_that_outlives_its_plan(engine: Engine) -> None:
    features = engine.begin(request(), NOW).features
    assert features.shape == (0, len(core_rs.feature_names()))
    assert features.dtype == np.float32
    assert not features.flags.writeable
    assert not features.flags.owndata
