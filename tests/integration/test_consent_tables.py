"""What tables say of consents: denials of browsers bind users there as in the engine, and trainers heed them."""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from server.adapters.memory_log import MemoryLog
from server.ports import LogRecord, NewRecord
from server.workers.profile_fill import fill_profiles
from server.workers.table_writer import TableWriter
from shopkeeper.v1.common_pb2 import Consent, ConsentPurpose
from shopkeeper.v1.profile_service_pb2 import Trait
from shopkeeper.v1.record_pb2 import RecordKind, Stated
from tests.table_shop import KINDS, TRAINING, Shop, either_shop, erasure, event, profile


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from either_shop(request, tmp_path / "store")


def test_a_denial_of_a_browser_that_comes_after_newer_changes_is_merged_with_what_is_not_answered_since(
    shop: Shop,
) -> None:
    late = Stated(visitor_id="ann", denials=[Stated.Denial(purpose=TRAINING, time_ms=5, bound_ms=6)])
    late.traits.extend([Trait(name="size", value="old"), Trait(name="city", value="Ulm")])
    for purpose in (TRAINING, ConsentPurpose.CONSENT_PURPOSE_MARKETING):
        late.answers.add(consent=Consent(purpose=purpose, granted=False), first_ms=3, last_ms=4)
    shop.add(profile("ann", {"size": "M"}, training=True))
    shop.sink.drain()
    writer = TableWriter(shop.store)
    record = LogRecord(-9, RecordKind.RECORD_KIND_STATED, 7, "ann", "", late.SerializeToString())
    for _ in range(2):
        writer.write([record])
        assert writer.outdated == set()
    sql = "SELECT log_offset, training, marketing, trait_names, trait_values FROM profiles FINAL"
    assert shop.rows(sql) == [(1, True, False, ["size"], ["M"])]


def test_a_denial_of_a_browser_binds_its_user_in_tables_unless_that_granted_later(shop: Shop) -> None:
    def bound(visitor_id: str, time_ms: int) -> NewRecord:
        denials = [Stated.Denial(purpose=TRAINING, time_ms=time_ms, bound_ms=time_ms + 500)]
        payload = Stated(visitor_id=visitor_id, denials=denials).SerializeToString()
        return NewRecord(RecordKind.RECORD_KIND_STATED, visitor_id, "", payload)

    def trained() -> list[tuple[Any, ...]]:
        shop.sink.drain()
        return shop.rows("SELECT visitor_id, training FROM profiles FINAL ORDER BY 1")

    shop.add(profile("ann", {"size": "M"}, training=True), profile("eve", training=True), time_ms=1_000)
    shop.add(bound("ann", 2_000), bound("bob", 2_000), bound("eve", 500), time_ms=3_000)
    assert trained() == [("ann", False), ("bob", False), ("eve", True)]
    shop.add(profile("ann", training=True), time_ms=4_000)
    shop.add(bound("ann", 2_000), time_ms=5_000)
    shop.add(erasure("bob"), time_ms=6_000)
    shop.add(NewRecord(RecordKind.RECORD_KIND_STATED, "bob", "", bound("", 2_000).payload), time_ms=7_000)
    assert trained() == [("ann", True), ("eve", True)]
    assert [reason for (reason,) in shop.rows("SELECT reason FROM bad_events FINAL")] == [
        "`visitor_id` is empty, or not the key of the record"
    ]


@pytest.mark.parametrize(("step", "at_once"), [(1, 500_000), (-1, 500_000), (1, 3)])
def test_denial_that_any_log_ends_with_is_filled(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, step: int, at_once: int
) -> None:
    """Offsets of two logs tell nothing of each other's time: the longer may be a backup that lacks what came since.

    Times do: a grant that came after a denial counts, also where the denial is filled last.
    """
    monkeypatch.setattr("server.workers.profile_fill._CHANGES_AT_ONCE", at_once)
    grants = profile("granted", training=False), profile("granted", {"size": "M"}, training=True)
    logs = MemoryLog(), MemoryLog()
    logs[0].append_later([profile("denied", {"size": "M"}, training=False), *grants], 1_000)
    old = profile("denied", {"city": "Ulm"}, training=True), profile("other", {"size": "L"})
    logs[1].append_later([profile("other"), *grants[1:] * 7, *old], 1_000)
    logs[0].append_later([profile("later", training=False)], 1_000)
    logs[1].append_later([profile("later", training=True)], 2_000)
    for number, log in [*enumerate(logs)][::step]:
        assert fill_profiles(log, shop.store, f"test.profiles/{number}", threading.Event()) > 1
        assert fill_profiles(log, shop.store, f"test.profiles/{number}", threading.Event()) == 0
    names = "visitor_id, trait_names, trait_values, training"
    assert shop.rows(f"SELECT {names} FROM profiles FINAL ORDER BY 1") == [  # noqa: S608
        ("denied", ["city", "size"], ["Ulm", "M"], False),
        ("granted", ["size"], ["M"], True),
        ("later", [], [], True),
        ("other", ["size"], ["L"], None),
    ]


def test_trainers_do_not_read_a_browser_that_is_asked_again_after_a_login(shop: Shop, tmp_path: Path) -> None:
    shop.store._consent_default = False
    shop.add(
        profile("phone", training=True),
        event("login", "a", visitor_id="phone", user_id="ann"),
        event("after", "a", visitor_id="phone"),
        profile("tablet", training=True),
        event("other", "a", visitor_id="tablet"),
    )
    shop.sink.drain()
    shop.store.export(tmp_path / "export")
    assert pq.read_table(tmp_path / "export" / "events.parquet").column("event_id").to_pylist() == ["other"]


def test_a_row_that_a_replica_still_has_is_not_merged_with_what_comes_after_the_erasure(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.add(profile("v", {"size": "M"}, training=True))
    shop.sink.drain()
    ask = shop.store.query

    def without_deletes(sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        return pa.table({}) if sql.startswith("ALTER TABLE profiles DELETE") else ask(sql, params)

    monkeypatch.setattr(shop.store, "query", without_deletes)
    shop.add(erasure("v"), time_ms=2_000)
    shop.sink.drain()
    shop.add(profile("v", {"colour": "red"}), time_ms=3_000)
    shop.sink.drain()
    assert shop.rows("SELECT trait_names, training FROM profiles FINAL") == [(["colour"], None)]
