"""`shopkeeper doctor`: every check says what it found and what comes next."""

import importlib.util
import json
from contextlib import closing

import pytest
from pydantic import SecretStr

from core_rs import Engine
from server.adapters.inbox import SqliteInbox
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.cli import doctor
from server.cli.doctor import Row, _kafka, _reached, _token_key, status_of
from server.cli.output import Exit
from server.defaults import PLACEMENTS
from server.ports import Kept, NewRecord
from server.settings import KafkaSettings, Settings
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION, Activation
from tests.bundle_maker import BundleMaker


def test_doctor_names_every_check_and_what_comes_next(run, tmp_path):
    outcome = run("doctor", "--data-dir", tmp_path / "none", "--json")
    rows = {row["check"]: row for row in json.loads(outcome.stdout)["checks"]}
    assert outcome.exit_code == 0
    assert set(rows) >= {"python", "core_rs", "settings", "data folder", "log", "snapshot", "store", "bundles", "port"}
    assert all(row["then"] for row in rows.values() if row["state"] != "ok")


def test_doctor_names_torch_where_it_is_missing(run, monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "torch" else find(name))
    rows = {row["check"]: row for row in json.loads(run("doctor", "--data-dir", tmp_path, "--json").stdout)["checks"]}
    assert rows["packages"]["state"] == "ok"
    assert "encoders of histories" in rows["packages"]["finding"]
    assert "shopkeeper[torch]" in rows["packages"]["then"]
    monkeypatch.setenv("COLUMNS", "400")
    assert "shopkeeper[torch]" in run("doctor", "--data-dir", tmp_path).stdout


def test_doctor_finds_a_damaged_log(run, tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"no database" * 100)
    outcome = run("doctor", "--data-dir", tmp_path, "--json")
    rows = {row["check"]: row for row in json.loads(outcome.stdout)["checks"]}
    assert outcome.exit_code == 1
    assert rows["log"]["state"] == "fail"


def test_doctor_counts_the_records_of_a_good_log(run, events_file, tmp_path):
    run("import", "events", events_file, "--data-dir", tmp_path / "data")
    rows = {row["check"]: row for row in json.loads(run("doctor", "--data-dir", "data", "--json").stdout)["checks"]}
    assert rows["log"]["finding"].startswith(f"{1 + len(PLACEMENTS)} records")


def test_doctor_finds_that_the_time_zone_was_changed_under_the_bundle_that_serves(run, monkeypatch, tmp_path):
    maker = BundleMaker(tmp_path / "bundles")
    for version, zone in (("tokyo", "Asia/Tokyo"), ("utc", "UTC")):
        maker.make(version, manifest={"time_zone": zone})
    (tmp_path / "bundles" / "incoming").mkdir()
    for version, state in (("utc", "ok"), ("tokyo", "fail")):
        activation = NewRecord(RECORD_KIND_ACTIVATION, "", "", Activation(version=version).SerializeToString())
        with closing(SqliteLog(tmp_path / "log.sqlite")) as log:
            list(log.import_records([[activation]], 1))
        outcome = run("doctor", "--data-dir", tmp_path, "--json")
        rows = {row["check"]: row for row in json.loads(outcome.stdout)["checks"]}
        assert (rows["bundles"]["state"], outcome.exit_code) == (state, int(state == "fail"))
    assert "tokyo serves no more" in rows["bundles"]["finding"]
    assert "set `time_zone` to Asia/Tokyo" in rows["bundles"]["finding"]
    assert "time_zone" in rows["bundles"]["then"]
    engine = Engine()
    engine.apply([(9, RECORD_KIND_ACTIVATION, 1, Activation(version="utc").SerializeToString())])
    (tmp_path / "snapshots").mkdir(exist_ok=True)
    engine.save_snapshot(str(tmp_path / "snapshots" / f"{9:020d}.snapshot"))
    monkeypatch.setenv("SHOPKEEPER__TIME_ZONE", "Asia/Tokyo")
    rows = {row["check"]: row for row in json.loads(run("doctor", "--data-dir", tmp_path, "--json").stdout)["checks"]}
    assert "utc serves no more" in rows["bundles"]["finding"]


def test_doctor_takes_no_lock_for_a_snapshot(run, tmp_path):
    (tmp_path / "snapshots").mkdir()
    (tmp_path / "snapshots" / "lock").touch()
    rows = {row["check"]: row for row in json.loads(run("doctor", "--data-dir", tmp_path, "--json").stdout)["checks"]}
    assert rows["snapshot"]["state"] == "warn"


def test_doctor_adds_no_offsets_of_partitions_up():
    kafka = {"shop.events/0": 7, "shop.events/0/a1": 4, "shop.items/1": 2, "shop.profiles/a1": 1}
    assert _reached(kafka) == "with records of 2 partitions of Kafka"
    assert _reached({"log": 1_234}) == "offset 1,234"
    assert _reached({}) == "offset 0"


@pytest.mark.parametrize(
    ("kafka", "key", "state"), [("", "", "ok"), ("127.0.0.1:1", "", "warn"), ("127.0.0.1:1", "k", "ok")]
)
def test_doctor_warns_of_machines_with_keys_of_their_own(kafka, key, state):
    row = _token_key(Settings(kafka=KafkaSettings(servers=kafka), token_key=SecretStr(key)))
    assert (row.state, "SHOPKEEPER__TOKEN_KEY" in row.then) == (state, state == "warn")


def test_doctor_tells_of_a_log_that_followed_another_prefix(tmp_path):
    kafka = KafkaSettings(servers="127.0.0.1:1", prefix="new")
    settings = Settings(data_dir=tmp_path, kafka=kafka)
    with closing(SqliteInbox(settings.log_path)) as inbox:
        inbox.take([], {"new.events/0": 4})
        assert "was read before" not in _kafka(settings).finding
        inbox.take([], {"old.events/0": 4})
    row = _kafka(settings)
    assert (row.state, row.code, "old.events/0 was read before" in row.finding) == ("fail", Exit.CONFIG, True)


def test_doctor_with_broken_settings_ends_with_3(run, monkeypatch):
    monkeypatch.setenv("SHOPKEEPER__NOPE", "1")
    assert run("doctor", "--json").exit_code == 3


@pytest.mark.parametrize("section", ["KAFKA__SERVERS", "CLICKHOUSE__SERVER"])
def test_doctor_ends_with_4_while_what_it_needs_is_down(run, monkeypatch, tmp_path, section):
    monkeypatch.setenv(f"SHOPKEEPER__{section}", "127.0.0.1:1")
    (tmp_path / "log.sqlite").write_bytes(b"no database" * 100)
    outcome = run("doctor", "--data-dir", tmp_path, "--json")
    assert outcome.exit_code == 4
    assert sorted(row["code"] for row in json.loads(outcome.stdout)["checks"] if row["state"] == "fail") == [1, 4]


def test_settings_count_before_what_is_down_before_what_failed():
    rows = [Row("log", "fail", "", "", code) for code in (Exit.FAILED, Exit.DEPENDENCY, Exit.CONFIG)]
    assert [status_of(rows[:count]) for count in range(4)] == [0, 1, 4, 3]


def test_doctor_knows_that_a_log_which_dropped_what_is_old_needs_a_snapshot(tmp_path):
    folder = tmp_path / "data"
    with closing(SqliteLog(folder / "log.sqlite")) as log:
        list(log.import_records([[NewRecord(1, "v", f"e{number}", b"") for number in range(2)]], 1))
    with closing(SqliteOutbox(folder / "log.sqlite")) as outbox:
        assert outbox.trim(Kept(9, range(9, 99)), 9) == 1
    rows = {row.check: row for row in doctor.examine(None, folder)}
    assert (rows["snapshot"].state, "shopkeeper restore" in rows["snapshot"].then) == ("fail", True)
    (folder / "snapshots").mkdir(exist_ok=True)
    (folder / "snapshots" / f"{7:020d}.snapshot").write_bytes(b"torn")
    rows = {row.check: row for row in doctor.examine(None, folder)}
    assert (rows["snapshot"].state, "shopkeeper restore" in rows["snapshot"].then) == ("fail", True)
