"""Commands that run the trainers pass on what they are asked for, and what came of it."""

import json
from contextlib import nullcontext

import pytest

from server.cli import deployment
from server.cli.output import CliError, Exit
from server.cli.retrain import _once
from server.settings import Settings
from tests.command_line import failed


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


def test_trainers_run_from_the_project_s_own_python(monkeypatch):
    seen = []
    monkeypatch.setattr(deployment.subprocess, "run", lambda command, **_: seen.append(command) or _Done())
    assert deployment.run_trainers(["train"]) == {}
    assert seen[0][1:4] == ["-m", "trainers", "train"]


class _Done:
    returncode = 0
    stdout = "{}"


@pytest.mark.parametrize("options", [[], ["--ranker", "trees"], ["--ranker", "network", "--item-vectors", "titles"]])
def test_train_passes_on_what_was_asked_for_and_nothing_else(run, monkeypatch, tmp_path, options):
    seen = []
    monkeypatch.setattr("server.cli.models.run_trainers", lambda command: seen.extend(command) or {"version": "b1"})
    assert run("train", "--export", tmp_path, "--json", *options).exit_code == 0
    assert [text for text in seen if text in {"--ranker", "trees", "network", "--item-vectors", "titles"}] == options


@pytest.mark.parametrize("keep", [True, False])
def test_a_bundle_that_the_gate_refuses_stays_by_name_or_goes(monkeypatch, tmp_path, keep):
    settings = Settings(data_dir=tmp_path)
    folder = settings.bundle_dir / "incoming" / "b2"
    folder.mkdir(parents=True)
    monkeypatch.setattr("server.cli.retrain.connected", lambda _: nullcontext())
    monkeypatch.setattr("server.cli.retrain._active", lambda _: "b1")
    monkeypatch.setattr("server.cli.retrain.fresh_export", lambda _: tmp_path)
    monkeypatch.setattr("server.cli.retrain.parts_in", lambda _: ["content", "sequence"])
    told = {"version": "b2", "gate": {"passed": False, "why": "worse"}}
    asked = []
    monkeypatch.setattr("server.cli.retrain.run_trainers", lambda command: asked.append(command) or told)
    with pytest.raises(CliError) as caught:
        _once(settings, "", [], 0.02, keep=keep, as_json=True)
    assert caught.value.code == Exit.GATE
    assert str(folder) in caught.value.then
    assert folder.exists() == keep
    assert asked[0][asked[0].index("--with") + 1] == "content,sequence"
