"""Every command ends with the documented status, speaks JSON when asked, and its errors name the next command."""

import importlib.util
import json
from contextlib import nullcontext

import pytest

from server.cli import deployment, running
from server.cli.main import main
from server.cli.output import CliError, Exit
from server.cli.retrain import _once
from server.defaults import PLACEMENTS
from server.settings import Settings
from tests.command_line import failed

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
    ["retrain"],
    ["rollback"],
    ["serve"],
    ["train"],
    ["trial", "show"],
    ["trial", "start"],
    ["trial", "stop"],
    ["version"],
]
GOOD = "user_id,item_id,event_type,timestamp\nu1,i1,view,1767225600\n"


@pytest.fixture
def events_file(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(GOOD, encoding="utf-8")
    return path


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
    assert run(*arguments).stderr.startswith("listening on 127.0.0.1:50099, data in")
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
        assert json.loads(outcome.stdout)["migrations"][0] == "0001_events"


def test_migrate_with_an_absent_kafka_ends_with_4(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOPKEEPER__KAFKA__SERVERS", "127.0.0.1:1")
    outcome = run("migrate", "--data-dir", tmp_path, "--json")
    assert outcome.exit_code == 4
    assert json.loads(outcome.stdout)["error"]["what"] == "Kafka is not available."


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


def test_doctor_with_broken_settings_ends_with_3(run, monkeypatch):
    monkeypatch.setenv("SHOPKEEPER__NOPE", "1")
    assert run("doctor", "--json").exit_code == 3


def test_log_that_is_no_database_ends_with_4(run, events_file, tmp_path):
    (tmp_path / "log.sqlite").write_bytes(b"no database" * 1000)
    failed(run("import", "events", events_file, "--data-dir", tmp_path, "--json"), 4)


@pytest.fixture
def trainers(monkeypatch, tmp_path):
    """Put another program in the place of the trainers; it prints and ends as told."""

    def trainers(text, status=0):
        program = tmp_path / "trainers.py"
        program.write_text(f"import sys\nprint({text!r})\nsys.exit({status})\n", encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return trainers


def test_train_prints_the_rows_of_the_trainers(run, trainers, tmp_path):
    row = {"set": "all", "model": "popular", "recall_at_10": 0.05}
    trainers(json.dumps({"version": "b1", "rows": [row]}))
    outcome = run("train", "--export", tmp_path, "--json")
    assert json.loads(outcome.stdout) == {"version": "b1", "rows": [row]}
    assert "shopkeeper publish b1" in outcome.stderr


@pytest.mark.parametrize(("status", "code"), [(1, 1), (5, 5), (77, 1)])
def test_train_ends_with_the_status_of_the_trainers(run, trainers, tmp_path, status, code):
    trainers("", status)
    failed(run("train", "--export", tmp_path, "--json"), code)


def test_train_without_a_log_ends_with_4(run, tmp_path):
    failed(run("train", "--data-dir", tmp_path / "none", "--json"), 4)


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


def test_trainers_run_from_the_project_s_own_python(monkeypatch):
    seen = []
    monkeypatch.setattr(deployment.subprocess, "run", lambda command, **_: seen.append(command) or _Done())
    assert deployment.run_trainers(["train"]) == {}
    assert seen[0][1:4] == ["-m", "trainers", "train"]


class _Done:
    returncode = 0
    stdout = "{}"


@pytest.mark.parametrize(("options", "sent"), [([], []), (["--ranker", "trees"], ["--ranker", "trees"])])
def test_train_says_what_the_ranker_is_made_of_where_it_is_asked(run, monkeypatch, tmp_path, options, sent):
    seen = []
    monkeypatch.setattr("server.cli.models.run_trainers", lambda command: seen.extend(command) or {"version": "b1"})
    assert run("train", "--export", tmp_path, "--json", *options).exit_code == 0
    assert [text for text in seen if text in {"--ranker", "trees", "network"}] == sent


@pytest.mark.parametrize("keep", [True, False])
def test_a_bundle_that_the_gate_refuses_stays_by_name_or_goes(monkeypatch, tmp_path, keep):
    settings = Settings(data_dir=tmp_path)
    folder = settings.bundle_dir / "incoming" / "b2"
    folder.mkdir(parents=True)
    monkeypatch.setattr("server.cli.retrain.connected", lambda _: nullcontext())
    monkeypatch.setattr("server.cli.retrain._active", lambda _: "b1")
    monkeypatch.setattr("server.cli.retrain.fresh_export", lambda _: tmp_path)
    told = {"version": "b2", "gate": {"passed": False, "why": "worse"}}
    monkeypatch.setattr("server.cli.retrain.run_trainers", lambda _: told)
    with pytest.raises(CliError) as caught:
        _once(settings, "", [], 0.02, keep=keep, as_json=True)
    assert caught.value.code == Exit.GATE
    assert str(folder) in caught.value.then
    assert folder.exists() == keep
