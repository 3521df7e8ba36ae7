"""Every command ends with the documented status, speaks JSON when asked, and its errors name the next command."""

import json
import os
import subprocess
import sys

import pytest

from server.cli import running
from server.cli.main import main
from server.cli.output import as_cli_error
from server.ports import (
    StoreOutdatedError,
    StoreSettingsError,
    StoreUnavailableError,
    StreamOutdatedError,
    StreamSettingsError,
    StreamUnavailableError,
)
from server.settings import SettingsError
from tests.command_line import GOOD, failed

COMMANDS = [
    ["activate"],
    ["demo"],
    ["doctor"],
    ["evaluate"],
    ["events", "tail"],
    ["explain"],
    ["export"],
    ["import", "complete-journey"],
    ["import", "events"],
    ["import", "items"],
    ["import", "profiles"],
    ["migrate"],
    ["placements"],
    ["publish"],
    ["recommend"],
    ["replay"],
    ["restore"],
    ["retrain"],
    ["rollback"],
    ["serve"],
    ["train"],
    ["trial", "show"],
    ["trial", "start"],
    ["trial", "stop"],
    ["version"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_documents_exit_codes_and_json(run, command):
    outcome = run(*command, "--help")
    assert outcome.exit_code == 0
    assert "--json" in outcome.stdout
    assert "gate not passed" in " ".join(outcome.stdout.split())


def test_import_prints_counts(run, events_file, tmp_path):
    outcome = run("import", "events", events_file, "--data-dir", tmp_path / "data", "--json")
    counts = json.loads(outcome.stdout)
    assert outcome.exit_code == 0
    assert (counts["rows"], counts["stored"], counts["unjoined"]) == (1, 1, 1)
    again = json.loads(run("import", "events", events_file, "--data-dir", tmp_path / "data", "--json").stdout)
    assert (again["stored"], again["duplicates"]) == (0, 1)


def test_dry_run_writes_the_refused_rows_and_nothing_else(run, tmp_path):
    path = tmp_path / "some.csv"
    path.write_text(f"{GOOD}u1,i1,dance,1767225600\n", encoding="utf-8")
    counts = json.loads(run("import", "events", path, "--dry-run", "--data-dir", "data", "--json").stdout)
    assert (counts["accepted"], counts["rejected"], counts["stored"]) == (1, 1, 0)
    written = [path.name for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert written == ["some.csv.rejected.jsonl"]
    assert "the refused are written" in " ".join(run("import", "events", "--help").stdout.replace("│", "").split())


def test_results_are_on_stdout_and_notes_on_stderr(run, events_file, tmp_path):
    outcome = run("import", "events", events_file, "--data-dir", tmp_path / "data")
    assert "records stored" in outcome.stdout
    assert "Unix seconds" in outcome.stderr
    assert "Unix seconds" not in outcome.stdout


def test_output_without_a_terminal_has_no_colours(run, events_file, tmp_path):
    outcome = run("import", "events", events_file, "--data-dir", tmp_path / "data")
    assert "\x1b" not in outcome.output


def test_unreadable_file_is_a_failure(run):
    assert "none.csv" in failed(run("import", "events", "none.csv", "--json"), 1)["what"]


def test_error_for_people_says_what_why_and_next(run, tmp_path):
    outcome = run("events", "tail", "--data-dir", tmp_path / "none")
    assert outcome.exit_code == 4
    assert outcome.stdout == ""
    for word in ("error", "why", "next", "shopkeeper import"):
        assert word in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_file_whose_rows_are_all_refused_is_a_failure(run, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(GOOD.replace("view", "dance"), encoding="utf-8")
    error = failed(run("import", "events", path, "--json"), 1)
    assert "event_type" in error["why"]
    assert "rejected.jsonl" in error["next"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["import", "events"],
        ["import", "events", "x.csv", "--map", "nothing"],
        ["import", "events", "x.csv", "--map", "a=price", "--map", "a=query"],
        ["import", "events", "x.csv", "--currency", "dollars"],
        ["recommend"],
        ["recommend", "u1", "--count", "-1"],
        ["trial", "start", "v1", "--share", "0"],
        ["trial", "start", "v1", "--share", "1.5"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["recommend"], "USER"),
        (["import", "events", "x.csv", "--frob"], "--frob"),
        (["import", "events", "x.csv", "--map", "nothing"], "OWN=OURS"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_usage_is_json_where_that_is_asked_for(monkeypatch, capsys, arguments, words):
    monkeypatch.setattr("sys.argv", ["shopkeeper", *arguments, "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in error["what"]
    assert "--help" in error["next"]
    assert error["exit_code"] == 2


def test_json_of_a_failure_and_of_help_keeps_its_status(monkeypatch, capsys):
    for arguments, code in ((["import", "events", "none.csv", "--dry-run"], 1), (["recommend", "--help"], 0)):
        monkeypatch.setattr("sys.argv", ["shopkeeper", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    assert json.loads(capsys.readouterr().out.splitlines()[0])["error"]["exit_code"] == 1


def test_settings_that_cannot_be_used_end_with_3(run, events_file, monkeypatch):
    monkeypatch.setenv("SHOPKEEPER__LISTEN__PORT", "many")
    error = failed(run("import", "events", events_file, "--json"), 3)
    assert "listen.port" in error["why"]
    assert "doctor" in error["next"]


def test_settings_file_with_an_unknown_key_ends_with_3(run, events_file, tmp_path):
    path = tmp_path / "shop.toml"
    path.write_text("nonsense = 1\n", encoding="utf-8")
    assert "nonsense" in failed(run("import", "events", events_file, "--config", path, "--json"), 3)["why"]


@pytest.mark.parametrize(
    "command", [["recommend", "u1"], ["explain", "u1"], ["publish", "v1"], ["rollback"]], ids=" ".join
)
def test_server_that_is_away_ends_with_4(run, command):
    assert "shopkeeper serve" in failed(run(*command, "--address", "127.0.0.1:1", "--json"), 4)["next"]


def test_serve_says_the_address_first_and_why_it_cannot_start(run, monkeypatch, tmp_path):
    def fail(_):
        raise OSError("cannot listen on 127.0.0.1:50099: in use; free it or set listen.port")

    monkeypatch.setattr("server.launch.serve", fail)
    arguments = ("serve", "--port", "50099", "--data-dir", tmp_path)
    assert run(*arguments).stderr.startswith("starting on 127.0.0.1:50099, data in")
    assert "listen.port" in failed(run(*arguments, "--json"), 4)["why"]


def test_events_tail_shows_the_latest_oldest_first(run, tmp_path):
    path = tmp_path / "many.csv"
    path.write_text(GOOD + "".join(f"u1,i{n},view,{1767225600 + n}\n" for n in range(2, 9)), encoding="utf-8")
    run("import", "events", path, "--data-dir", "data")
    data = json.loads(run("events", "tail", "-n", "2", "--data-dir", "data", "--json").stdout)
    assert [row["items"] for row in data["events"]] == [["i7"], ["i8"]]


def test_migrate_brings_the_tables_up_to_date(run, tmp_path):
    for _ in range(2):
        outcome = run("migrate", "--data-dir", tmp_path / "data", "--json")
        assert outcome.exit_code == 0
        facts = json.loads(outcome.stdout)
        assert (facts["migrations"][0], facts["retention_days"]) == ("0001_events", 0)


def test_migrate_with_an_absent_kafka_ends_with_4(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPKEEPER__KAFKA__SERVERS", "127.0.0.1:1")
    outcome = run("migrate", "--data-dir", tmp_path, "--json")
    assert outcome.exit_code == 4
    assert json.loads(outcome.stdout)["error"]["what"] == "Kafka is not available."


def test_drivers_say_nothing_beside_the_findings(tmp_path):
    """In a process of its own, for here the tests take what is logged."""
    absent = {f"SHOPKEEPER__{section}": "127.0.0.1:1" for section in ("KAFKA__SERVERS", "CLICKHOUSE__SERVER")}
    call = [sys.executable, "-m", "server.cli", "doctor", "--data-dir", str(tmp_path)]
    done = subprocess.run(call, env={**os.environ, **absent}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize(
    ("fault", "code", "then"),
    [
        (StreamSettingsError("set kafka.tls=true"), 3, "mend the setting"),
        (StoreSettingsError("set clickhouse.user"), 3, "mend the setting"),
        (SettingsError("set clickhouse.server"), 3, "mend them"),
        (StreamUnavailableError("away"), 4, "doctor"),
        (StoreUnavailableError("away"), 4, "doctor"),
        (StreamOutdatedError("no topics"), 1, "migrate"),
        (StoreOutdatedError("no tables"), 1, "migrate"),
    ],
)
def test_exit_code_says_whose_fault_it_is(fault, code, then):
    error = as_cli_error(fault)
    assert (error.code, error.why) == (code, str(fault))
    assert then in error.then


def test_log_that_is_no_database_ends_with_4(run, events_file, tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"no database" * 1000)
    failed(run("import", "events", events_file, "--data-dir", tmp_path, "--json"), 4)


def test_demo_keeps_away_from_a_folder_that_is_not_its_own(run, events_file, tmp_path):
    run("import", "events", events_file, "--data-dir", tmp_path / "mine")
    before = {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()}
    error = failed(run("demo", "--data-dir", tmp_path / "mine", "--json"), 1)
    assert "--data-dir" in error["next"]
    assert {path: path.read_bytes() for path in (tmp_path / "mine").rglob("*") if path.is_file()} == before
    assert before


def test_bench_outside_a_checkout_says_so(run, monkeypatch, tmp_path):
    monkeypatch.setattr(running, "_BENCH", tmp_path / "run.py")
    failed(run("bench", "--json"), 1)


def test_bench_passes_its_arguments_on(run, monkeypatch, tmp_path, capfd):
    script = tmp_path / "run.py"
    script.write_text("import sys\nprint(sys.argv[1:])\n", encoding="utf-8")
    monkeypatch.setattr(running, "_BENCH", script)
    assert run("bench", "--only", "G1", "--json").exit_code == 0
    assert "--only" in capfd.readouterr().out
