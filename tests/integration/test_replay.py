"""What the tables could not take comes back, once, in the tables and in what every replica follows."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from typer.testing import CliRunner

from core_rs import Engine
from server.adapters.asked_store import AskedStore, answer_asks
from server.adapters.chdb_store import ChdbStore
from server.adapters.sqlite_log import open_log
from server.cli.main import app
from server.lockfile import FileLock, LockHeldError
from server.ports import NewRecord, StoreBusyError, StoreError
from server.quality import examine
from server.settings import Settings
from server.tables import open_store, prepare_store
from server.workers.replay import Fate, Mended, Outcome, Replay
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement
from shopkeeper.v1.record_pb2 import DocumentChange, ItemChange, RecordKind, Stated
from tests.shop_process import ShopProcess
from tests.table_shop import KINDS, TRAINING, Shop, either_shop, erasure, event, item, profile, wait_until

BAD = b"\xff\xff"


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from either_shop(request, tmp_path / "store")


def bad_event(event_id: str, visitor_id: str = "v") -> NewRecord:
    return NewRecord(RecordKind.RECORD_KIND_EVENT, visitor_id, event_id, BAD)


def bad_offsets(shop: Shop) -> list[int]:
    return [offset for (offset,) in shop.rows("SELECT log_offset FROM bad_events FINAL ORDER BY 1")]


def event_ids(shop: Shop) -> list[str]:
    return [event_id for (event_id,) in shop.rows("SELECT event_id FROM events FINAL ORDER BY 1")]


def put_back(shop: Shop, *mended: Mended, rehearse: bool = False) -> list[Fate]:
    outcomes = list(Replay(shop.store, shop.log, rehearse=rehearse).put_back(mended))
    shop.sink.drain()
    return fates(outcomes)


def try_again(shop: Shop, *, rehearse: bool = False) -> list[Fate]:
    return fates(list(Replay(shop.store, shop.log, rehearse=rehearse).try_again()))


def fates(outcomes: list[Outcome]) -> list[Fate]:
    return [outcome.fate for outcome in sorted(outcomes, key=lambda one: one.log_offset)]


def live_events(shop: Shop) -> int:
    engine = Engine()
    engine.apply([(one.offset, one.kind, one.time_ms, one.payload) for one in shop.log.read(0, 1_000)])
    return engine.stats()["events"]


def test_mended_events_are_in_tables_and_serving_once_however_often_they_are_replayed(shop: Shop) -> None:
    shop.add(bad_event("e1"), event("e2", "a"), bad_event("e3"))
    shop.sink.drain()
    assert (bad_offsets(shop), live_events(shop)) == ([1, 3], 1)
    mended = [Mended(1, event("e1", "a").payload), Mended(3, event("e3", "b").payload)]
    assert put_back(shop, *mended, rehearse=True) == [Fate.STORED, Fate.STORED]
    assert (bad_offsets(shop), event_ids(shop)) == ([1, 3], ["e2"]), "a rehearsal changes nothing"
    assert put_back(shop, *mended) == [Fate.STORED, Fate.STORED]
    assert (bad_offsets(shop), event_ids(shop), live_events(shop)) == ([], ["e1", "e2", "e3"], 3)
    assert put_back(shop, *mended) == [Fate.ABSENT, Fate.ABSENT]
    shop.store.query("TRUNCATE TABLE sink_offsets")
    shop.another_sink().drain()
    assert bad_offsets(shop) == [1, 3], "tables that are made again have the bad rows again"
    assert put_back(shop, *mended) == [Fate.DUPLICATE, Fate.DUPLICATE]
    assert (bad_offsets(shop), event_ids(shop), live_events(shop)) == ([], ["e1", "e2", "e3"], 3)


def test_event_that_came_otherwise_or_twice_in_a_file_is_stored_once(shop: Shop) -> None:
    shop.add(bad_event("x1"), bad_event("x2"), bad_event("x3"), event("e1", "a"))
    shop.sink.drain()
    again = [Mended(1, event("e1", "a").payload), *(Mended(number, event("e2", "a").payload) for number in (2, 3))]
    assert put_back(shop, *again) == [Fate.DUPLICATE, Fate.STORED, Fate.DUPLICATE]
    assert (event_ids(shop), bad_offsets(shop), live_events(shop)) == (["e1", "e2"], [], 2)


def test_other_bytes_for_the_same_row_are_a_conflict(shop: Shop) -> None:
    shop.add(bad_event("e1"))
    shop.sink.drain()
    assert put_back(shop, Mended(1, event("e1", "a").payload)) == [Fate.STORED]
    for table in ("sink_offsets", "events"):
        shop.store.query(f"TRUNCATE TABLE {table}")
    shop.sink._writer.write(shop.log.read(0, 1))
    assert put_back(shop, Mended(1, event("e1", "b").payload)) == [Fate.CONFLICT]
    assert bad_offsets(shop) == [1]


def test_mended_items_profiles_and_documents_end_in_their_tables(shop: Shop) -> None:
    kinds = (RecordKind.RECORD_KIND_ITEM, RecordKind.RECORD_KIND_PROFILE, RecordKind.RECORD_KIND_DOCUMENT)
    shop.add(*(NewRecord(kind, "", "", BAD) for kind in (*kinds, -1)))
    shop.sink.drain()
    home = DocumentChange(placement=Placement(placement_id="home", sources=[{"source": "popular"}]))
    assert (
        put_back(
            shop,
            Mended(1, MessageToDict(ItemChange(item=Item(item_id="a", title="Brie")))),
            Mended(2, profile("v", {"size": "M"}).payload),
            Mended(3, home.SerializeToString()),
            Mended(4, event("e1", "a").payload, RecordKind.RECORD_KIND_EVENT),
        )
        == [Fate.STORED] * 4
    )
    assert shop.rows("SELECT title FROM items FINAL") == [("Brie",)]
    assert shop.rows("SELECT visitor_id, trait_values FROM profiles FINAL") == [("v", ["M"])]
    assert shop.rows("SELECT document_id FROM documents FINAL") == [("home",)]
    assert (event_ids(shop), bad_offsets(shop)) == (["e1"], [])


def test_mended_document_takes_the_place_of_what_is_there(shop: Shop) -> None:
    kind = RecordKind.RECORD_KIND_DOCUMENT
    sources = [{"source": "popular"}]
    home = [
        DocumentChange(placement=Placement(placement_id="home", description=text, sources=sources))
        for text in ("old", "mended")
    ]
    shop.add(NewRecord(kind, "", "", home[0].SerializeToString()), NewRecord(kind, "", "", BAD))
    shop.sink.drain()
    assert put_back(shop, Mended(2, home[1].SerializeToString())) == [Fate.STORED]
    assert shop.rows("SELECT hex(payload) FROM documents FINAL") == [
        (home[1].placement.SerializeToString().hex().upper(),)
    ]


@pytest.mark.parametrize(
    ("mended", "why"),
    [
        (Mended(1, BAD), "it is no Event"),
        (Mended(1, {"nothing": 1}), "it is no Event"),
        (Mended(1, Event(event_id="e1").SerializeToString()), "required"),
        (Mended(2, event("e2", "a").payload), "can be read and counts in serving"),
        (Mended(3, ItemChange(item=Item()).SerializeToString()), "item_id"),
        (Mended(4, b""), "kind -1 cannot be mended; name the kind"),
    ],
)
def test_what_may_not_take_the_place_of_a_row_is_refused(shop: Shop, mended: Mended, why: str) -> None:
    shop.store.query("ALTER TABLE events ADD CONSTRAINT known CHECK item_id != 'poison'")
    unknown = (NewRecord(RecordKind.RECORD_KIND_ITEM, "", "", BAD), NewRecord(-1, "", "", BAD))
    shop.add(bad_event("e1"), event("e2", "poison"), *unknown)
    shop.sink.drain()
    (outcome,) = Replay(shop.store, shop.log).put_back([mended])
    assert outcome.fate == Fate.REFUSED
    assert why in outcome.reason
    assert (bad_offsets(shop), shop.log.last_offset()) == ([1, 2, 3, 4], 4)


def test_nothing_of_a_visitor_who_was_forgotten_comes_back(shop: Shop) -> None:
    shop.add(bad_event("e1", visitor_id="w"), bad_event("e2"), erasure("v"))
    shop.sink.drain()
    assert bad_offsets(shop) == [1]
    assert put_back(shop, Mended(1, event("e1", "a").payload)) == [Fate.REFUSED]
    assert put_back(shop, Mended(2, event("e2", "a").payload)) == [Fate.ABSENT]
    assert event_ids(shop) == []


def test_rows_are_taken_once_the_cause_is_gone(shop: Shop) -> None:
    shop.store.query("ALTER TABLE events ADD CONSTRAINT known CHECK item_id != 'poison'")
    shop.add(event("e1", "poison"), bad_event("e2"), event("e3", "poison"))
    shop.sink.drain()
    assert try_again(shop) == [Fate.BAD] * 3
    shop.store.query("ALTER TABLE events DROP CONSTRAINT known")
    assert try_again(shop, rehearse=True) == [Fate.STORED, Fate.BAD, Fate.STORED]
    assert (bad_offsets(shop), event_ids(shop)) == ([1, 2, 3], [])
    assert try_again(shop) == [Fate.STORED, Fate.BAD, Fate.STORED]
    assert (bad_offsets(shop), event_ids(shop)) == ([2], ["e1", "e3"])
    assert shop.rows("SELECT DISTINCT log_offset FROM events FINAL ORDER BY 1") == [(1,), (3,)], "at their own place"


def test_old_change_does_not_undo_a_newer_one(shop: Shop) -> None:
    shop.store.query("ALTER TABLE items ADD CONSTRAINT known CHECK title != 'old'")
    shop.add(item(ItemChange(item=Item(item_id="a", title="old"))))
    shop.sink.drain()
    shop.add(item(ItemChange(item=Item(item_id="a", title="new"))))
    shop.sink.drain()
    shop.store.query("ALTER TABLE items DROP CONSTRAINT known")
    assert try_again(shop) == [Fate.OUTDATED]
    assert shop.rows("SELECT title FROM items FINAL") == [("new",)]


def dismiss(shop: Shop, *offsets: int, rehearse: bool = False) -> list[Fate]:
    return fates(list(Replay(shop.store, shop.log, rehearse=rehearse).dismiss(offsets, 7)))


def dismissed(shop: Shop) -> list[tuple[int, int]]:
    return shop.rows("SELECT log_offset, dismiss_ms FROM bad_events FINAL WHERE dismiss_ms > 0 ORDER BY 1")


def test_dismissed_rows_are_counted_and_stay_so_when_the_log_is_read_again(shop: Shop) -> None:
    shop.add(bad_event("e1"), bad_event("e2"), bad_event("e3", visitor_id="w"))
    shop.sink.drain()
    assert dismiss(shop, 1, rehearse=True) == [Fate.DISMISSED]
    assert dismissed(shop) == [], "a rehearsal changes nothing"
    assert dismiss(shop, 1, 3, 9) == [Fate.DISMISSED, Fate.DISMISSED, Fate.ABSENT]
    assert (dismissed(shop), try_again(shop)) == ([(1, 7), (3, 7)], [Fate.BAD])
    (finding,) = (one for one in examine(shop.store, 10).findings if one.check == "bad records")
    assert finding.finding.startswith("1 records are set aside, ")
    assert finding.finding.endswith("; 2 are dismissed")
    shop.store.query("TRUNCATE TABLE sink_offsets")
    shop.another_sink().drain()
    assert (dismissed(shop), bad_offsets(shop)) == ([(1, 7), (3, 7)], [1, 2, 3])
    assert try_again(shop) == [Fate.BAD]
    shop.add(erasure("w"))
    shop.sink.drain()
    assert dismissed(shop) == [(1, 7)], "of who was forgotten no trace stays"


def test_dismissed_row_may_still_be_mended(shop: Shop) -> None:
    shop.add(bad_event("e1"))
    shop.sink.drain()
    assert dismiss(shop, 1) == [Fate.DISMISSED]
    assert put_back(shop, Mended(1, event("e1", "a").payload)) == [Fate.STORED]
    assert (bad_offsets(shop), event_ids(shop)) == ([], ["e1"])


def run(*arguments: object, text: str = "") -> tuple[int, dict[str, Any]]:
    outcome = CliRunner().invoke(app, ["replay", *map(str, arguments), "--json"], input=text)
    return outcome.exit_code, json.loads(outcome.stdout)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    with closing(open_log(Settings(data_dir=tmp_path / "data"))) as log:
        list(log.import_records([[event("e1", "a"), bad_event("e2")]], 1_000))
    return tmp_path / "data"


def test_command_writes_what_is_bad_and_takes_it_mended(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "bad.jsonl"
    status, found = run("--data-dir", data_dir, "--out", out)
    assert (status, found["counts"]["still bad"]) == (1, 1)
    (line,) = map(json.loads, out.read_text().splitlines())
    assert (line["log_offset"], line["kind"], line["record_id"]) == (2, "event", "e2")
    assert line["payload"] == b64encode(BAD).decode()
    line["payload"] = b64encode(event("e2", "b").payload).decode()
    assert run("-", "--data-dir", data_dir, "--dry-run", text=json.dumps(line))[1]["counts"]["stored"] == 1
    out.write_text(json.dumps(line) + "\n")
    status, found = run(out, "--data-dir", data_dir)
    assert (status, found["counts"]["stored"]) == (0, 1)
    assert run("--data-dir", data_dir)[1]["counts"] == dict.fromkeys(Fate, 0)
    with closing(open_store(Settings(data_dir=data_dir))) as store:
        assert sorted(store.query("SELECT event_id FROM events FINAL").column(0).to_pylist()) == ["e1", "e2"]


def test_command_dismisses_what_a_file_names_and_then_ends_well(data_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "bad.jsonl"
    assert run("--data-dir", data_dir, "--out", out)[0] == 1
    status, found = run(out, "--dismiss", "--data-dir", data_dir)
    assert (status, found["counts"]["dismissed"]) == (0, 1)
    assert [(row["log_offset"], row["fate"]) for row in found["rows"]] == [(2, "dismissed")]
    assert run("--data-dir", data_dir) == (0, {"dry_run": False, "counts": dict.fromkeys(Fate, 0), "rows": []})
    assert run("-", "--dismiss", "--data-dir", data_dir, text='{"log_offset": 9}')[0] == 1
    shown = CliRunner().invoke(app, ["replay", str(out), "--dismiss", "--data-dir", str(data_dir)])
    assert re.search(r"dismissed\W+1\W+2\W+\w", shown.stdout)


def test_dismissal_without_rows_is_a_wrong_use(data_dir: Path) -> None:
    outcome = CliRunner().invoke(app, ["replay", "--dismiss", "--data-dir", str(data_dir)])
    assert outcome.exit_code == 2
    assert "takes the file of the rows" in outcome.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "Expecting property name"),
        ('{"payload": ""}', "it has no log_offset"),
        ('{"log_offset": 2}', "it has no payload, and no message"),
        ('{"log_offset": 2, "payload": "?"}', "base64"),
        ('{"log_offset": 2, "payload": "", "kind": "evnt"}', "the kind evnt is none of event, decision"),
        ("17", "it is no JSON object"),
    ],
)
def test_line_that_is_no_mended_row_is_named(data_dir: Path, text: str, why: str) -> None:
    status, found = run("-", "--data-dir", data_dir, text=f"\n{text}\n")
    assert status == 1
    assert "Line 2" in found["error"]["what"]
    assert why in found["error"]["why"]


def test_file_that_is_missing_is_named(data_dir: Path, tmp_path: Path) -> None:
    assert "cannot be read" in run(tmp_path / "none", "--data-dir", data_dir)[1]["error"]["what"]


def is_owned(data_dir: Path) -> bool:
    try:
        FileLock(Settings(data_dir=data_dir).store_dir.with_suffix(".lock")).release()
    except LockHeldError:
        return True
    return False


def test_owner_that_does_not_answer_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.cli.replay._ANSWER_S", 0.1)
    with closing(prepare_store(Settings(data_dir=data_dir))):
        status, found = run("--data-dir", data_dir)
    assert status == 4
    assert "no answer within 0.1 s; tables" in found["error"]["why"]
    assert not list((data_dir / "exports").iterdir())


def test_refusal_of_the_owner_is_told(tmp_path: Path) -> None:
    asked = AskedStore(tmp_path / "asks", StoreBusyError("owned"), timeout_s=30)
    with closing(ChdbStore(tmp_path / "store")) as store, ThreadPoolExecutor() as pool:
        answer = pool.submit(asked.query, "SELECT * FROM nowhere")
        wait_until(lambda: bool(answer_asks(lambda: None, store, tmp_path / "asks")) or answer.done())
        with pytest.raises(StoreError, match=r"(?i)the owner of the tables: .*unknown.table"):
            answer.result()


def test_command_works_beside_the_server_that_owns_the_tables(data_dir: Path) -> None:
    with ShopProcess(data_dir) as server:
        wait_until(lambda: is_owned(data_dir))
        assert run("--data-dir", data_dir)[1]["counts"]["still bad"] == 1
        line = json.dumps({"log_offset": 2, "payload": b64encode(event("e2", "b").payload).decode()})
        assert run("-", "--data-dir", data_dir, text=line)[1]["counts"]["stored"] == 1
        assert server.stop() == 0
    with closing(open_store(Settings(data_dir=data_dir))) as store:
        assert sorted(store.query("SELECT event_id FROM events FINAL").column(0).to_pylist()) == ["e1", "e2"]


def test_mended_profile_does_not_undo_a_later_answer(shop: Shop) -> None:
    shop.add(NewRecord(RecordKind.RECORD_KIND_PROFILE, "", "", BAD))
    shop.sink.drain()
    shop.add(profile("v", {"size": "L"}))
    (outcome,) = Replay(shop.store, shop.log).put_back([Mended(1, profile("v", {"size": "M"}).payload)])
    assert (outcome.fate, outcome.reason[:31]) == (Fate.REFUSED, "the profile was changed since; ")


def test_nothing_comes_back_of_a_visitor_whose_erasure_the_tables_do_not_know_yet(shop: Shop) -> None:
    shop.add(bad_event("e1", visitor_id="w"))
    shop.sink.drain()
    shop.add(erasure("v"))
    (outcome,) = Replay(shop.store, shop.log).put_back([Mended(1, event("e1", "a").payload)])
    assert (outcome.fate, outcome.reason) == (Fate.REFUSED, "visitor v was forgotten since")


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        (Stated(visitor_id="v", denials=[Stated.Denial(purpose=TRAINING, time_ms=2_000)]), "a denial has a time after"),
        (
            Stated(visitor_id="v", answers=[{"consent": {"purpose": TRAINING, "granted": True}, "first_ms": 2_000}]),
            "an answer has a time after",
        ),
    ],
)
def test_a_mended_statement_of_the_future_is_refused(shop: Shop, stated: Stated, why: str) -> None:
    shop.add(NewRecord(RecordKind.RECORD_KIND_STATED, "v", "", BAD))
    shop.sink.drain()
    (outcome,) = Replay(shop.store, shop.log).put_back([Mended(1, stated.SerializeToString())])
    assert (outcome.fate, why in outcome.reason) == (Fate.REFUSED, True)
