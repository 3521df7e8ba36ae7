"""Commands that run the trainers pass on what they are asked for, and what came of it."""

import importlib.util
import json
import signal
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from server.cli import deployment, making
from server.cli.output import CliError, Exit
from server.cli.retrain import _once, _remove_old, made_as
from server.settings import Settings
from shopkeeper.v1 import model_service_pb2 as pb
from tests.command_line import failed
from trainers import item_vectors, parts, rankers


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


@pytest.mark.parametrize(("number", "why"), [(9, "memory ran out"), (6, "memory ran out"), (15, "stopped it")])
def test_trainers_that_a_signal_ends_say_which_and_why(run, monkeypatch, tmp_path, number, why):
    (tmp_path / "trainers.py").write_text(f"import os\nos.kill(os.getpid(), {number})\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    error = failed(run("train", "--export", tmp_path, "--json"), 1)
    assert f"signal {signal.Signals(number).name}" in error["what"]
    assert why in error["why"]
    assert error["next"]


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


@pytest.mark.parametrize(
    "options",
    [[], ["--ranker", "trees"], ["--with", "content"], ["--with", "content", "--item-vectors", "vectors.parquet"]],
    ids=" ".join,
)
def test_train_passes_on_what_was_asked_for_and_nothing_else(run, monkeypatch, tmp_path, options):
    (tmp_path / "vectors.parquet").touch()
    seen = []
    monkeypatch.setattr("server.cli.models.run_trainers", lambda command: seen.extend(command) or {"version": "b1"})
    assert run("train", "--export", tmp_path, "--json", *options).exit_code == 0
    assert seen[seen.index("--out") + 2 : -1] == options


@pytest.fixture
def no_export(monkeypatch):
    for module in ("models", "retrain"):
        monkeypatch.setattr(f"server.cli.{module}.fresh_export", lambda _: pytest.fail("exported before it looked"))


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("command", ["train", "retrain"])
@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--ranker", "forest"], "trees"),
        (["--with", "content,kontext"], "no part kontext"),
        (["--with", "content", "--item-vectors", "none.parquet"], "no file none.parquet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_options_that_cannot_be_end_with_2_before_anything_is_exported(run, command, options, word):
    outcome = run(command, *options)
    assert outcome.exit_code == 2
    assert word in " ".join(outcome.stderr.replace("│", "").split())


@pytest.mark.usefixtures("no_export")
def test_vectors_that_no_part_reads_end_train_before_it_exports(run):
    outcome = run("train", "--item-vectors", "titles")
    assert outcome.exit_code == 2
    assert "add `--with content`" in " ".join(outcome.stderr.replace("│", "").split())


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("command", ["train", "retrain"])
@pytest.mark.parametrize(
    ("options", "extra"), [("--with sequence", "torch"), ("--with content --item-vectors titles", "text")]
)
def test_what_is_not_installed_is_said_before_anything_is_exported(run, monkeypatch, command, options, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in {"torch", "wordllama"} else find(name))
    assert f"shopkeeper[{extra}]" in failed(run(command, *options.split(), "--json"), 1)["next"]


def test_the_words_for_parts_and_rankers_are_those_of_the_trainers():
    assert set(making.PART_FILES) == set(parts.PARTS)
    assert [set(making.RankerKind), making.TITLES] == [set(rankers.RankerKind), item_vectors.TITLES]


@pytest.mark.parametrize("keep", [True, False])
def test_a_bundle_that_the_gate_refuses_stays_by_name_or_goes(monkeypatch, tmp_path, keep):
    settings = Settings(data_dir=tmp_path)
    serving(settings.bundle_dir / "b1")
    folder = settings.bundle_dir / "incoming" / "b2"
    folder.mkdir(parents=True)
    monkeypatch.setattr("server.cli.retrain.connected", lambda _: nullcontext())
    monkeypatch.setattr("server.cli.retrain._active", lambda _: "b1")
    monkeypatch.setattr("server.cli.retrain.fresh_export", lambda _: tmp_path)
    told = {"version": "b2", "gate": {"passed": False, "why": "worse"}}
    asked = []
    monkeypatch.setattr("server.cli.retrain.run_trainers", lambda command: asked.append(command) or told)
    with pytest.raises(CliError) as caught:
        _once(settings, "", {"--ranker": "network"}, 0.02, keep=keep, as_json=True)
    assert caught.value.code == Exit.GATE
    assert str(folder) in caught.value.then
    assert folder.exists() == keep
    options = dict(zip(asked[0][1::2], asked[0][2::2], strict=False))
    assert options["--with"] == "content,sequence"
    assert options["--ranker"] == "network"
    assert options["--item-vectors"] == "titles"


def test_where_nothing_can_be_judged_no_bundle_is_published_or_removed(monkeypatch, tmp_path):
    settings = Settings(data_dir=tmp_path)
    serving(settings.bundle_dir / "b1")
    monkeypatch.setattr("server.cli.retrain.connected", lambda _: nullcontext())
    monkeypatch.setattr("server.cli.retrain._active", lambda _: "b1")
    monkeypatch.setattr("server.cli.retrain.fresh_export", lambda _: tmp_path)
    told = {"gate": {"passed": False, "why": "only 3 visitors"}}
    monkeypatch.setattr("server.cli.retrain.run_trainers", lambda _: told)
    incoming = settings.bundle_dir / "incoming" / "b0"
    incoming.mkdir(parents=True)
    with pytest.raises(CliError, match="none was trained") as caught:
        _once(settings, "", {}, 0.02, keep=False, as_json=True)
    assert (caught.value.code, caught.value.why) == (Exit.GATE, "only 3 visitors")
    assert incoming.exists()


def serving(folder, **card):
    """Write the manifest of a bundle with both parts, trees and vectors of titles."""
    folder.mkdir(parents=True)
    files = dict.fromkeys(["content_items.safetensors", "sequence.onnx"], "0" * 64)
    facts = dict.fromkeys(["create_ms", "train_start_ms", "train_end_ms", "event_count"], 1)
    made = {"ranker": "trees", "item_vectors": "titles", "files": files, **card}
    manifest = {"version": folder.name, "schema_hash": "", "features": [], "actions": [], **facts, **made}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_a_new_bundle_is_made_as_the_serving_one_unless_told_otherwise(tmp_path):
    usual = {"--with": "content,sequence", "--ranker": "trees", "--item-vectors": "titles"}
    bundle = serving(tmp_path / "b1")
    assert made_as(bundle, {}) == usual
    assert made_as(bundle, {"--item-vectors": "mine.parquet"}) == {**usual, "--item-vectors": "mine.parquet"}
    assert made_as(bundle, {"--with": "sequence"}) == {"--with": "sequence", "--ranker": "trees"}
    assert made_as(serving(tmp_path / "b0", ranker="", item_vectors="", files={}), {"--seed": "1"}) == {"--seed": "1"}


def test_bundles_that_nobody_needs_soon_are_removed(tmp_path):
    models = [pb.Model(version=f"b{number}", state=pb.Model.STATE_PUBLISHED) for number in range(9, 0, -1)]
    for model in models:
        serving(tmp_path / model.version)
    models[0].state, models[6].state = pb.Model.STATE_ACTIVE, pb.Model.STATE_TRIAL
    service = SimpleNamespace(ListModels=lambda *_, **__: pb.ListModelsResponse(models=models))
    _remove_old(SimpleNamespace(models=service), tmp_path, before="b2")
    assert {path.name for path in tmp_path.iterdir()} == {"b9", "b8", "b7", "b6", "b5", "b3", "b2"}
