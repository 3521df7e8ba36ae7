"""From an export to a bundle that the server takes, and the same quality offline and through the front door."""

import asyncio
import datetime as dt
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pytest

import core_rs
from server.app import App
from server.bundle_check import check
from server.settings import ClockSettings, ListenSettings, Settings
from tests.weekly_shop import DAY, ITEMS, SPLIT, SPLIT_MS, VISITORS, purchases, serve, write_tables
from trainers.ablation import variants
from trainers.bundle import learnt_until
from trainers.dataset import read_export
from trainers.examples import learnable_actions
from trainers.gate import judge
from trainers.pipeline import Pipeline, write
from trainers.plot import draw_recall
from trainers.protocols import NextBasketQuestion
from trainers.rankers import RankerKind
from trainers.report import lines_of
from trainers.schedule import Schedule, split_of
from trainers.served import measure_served

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture(scope="module", autouse=True)
def few_rows_calibrate() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainers.ranker._LEAST_HALF", 20)
        patch.setattr("trainers.ranker._LEAST_OUTCOMES", 10)
        yield


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    lines = purchases()
    lines.filter(pl.col("time_ms") < SPLIT_MS).write_parquet(folder / "events.parquet")
    lines.filter(pl.col("time_ms") >= SPLIT_MS).write_parquet(folder / "held_out.parquet")
    write_tables(folder)
    return folder


@pytest.fixture(scope="module")
def told() -> list[tuple[str, float]]:
    return []


@pytest.fixture(scope="module")
def pipeline(export, told):
    found = read_export(export)
    assert split_of(found) == SPLIT_MS
    schedule = Schedule.weekly(found.dataset, SPLIT_MS)
    return Pipeline(found, schedule, seeds=(3,), progress=lambda *what: told.append(what))


@pytest.fixture(scope="module")
def trained(pipeline, told, tmp_path_factory):
    fitted = pipeline.run()
    out = tmp_path_factory.mktemp("incoming")
    assert {what for what, _ in told} >= {"learn from the past", "fit the ranker", "measure all", "measure explore"}
    assert all(0 <= share <= 1 for _, share in told)
    return fitted, out / write(fitted, pipeline, out)


def test_the_server_takes_the_bundle(trained):
    _, folder = trained
    check(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["schema_hash"] == core_rs.schema_hash()
    assert manifest["actions"] == ["purchase"]
    assert SPLIT_MS - 2 * DAY < manifest["train_end_ms"] <= SPLIT_MS
    assert (manifest["visitor_count"], manifest["item_count"]) == (VISITORS, ITEMS)
    assert {"purchase/calibration_error_before", "purchase/calibration_error_after"} <= set(manifest["metrics"])
    for metric in manifest["metrics"].values():
        assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1


def test_the_ranker_finds_favourites(trained):
    fitted, _ = trained
    assert fitted.ranked_by == "ranker"
    by_ranker = fitted.measured["all", "ranker"][0].means()
    assert by_ranker["recall_at_10"] > 0.7
    assert fitted.measured["all", "ranker"][0].visitor_count == VISITORS


def test_a_ranker_of_trees_makes_a_bundle_that_the_engine_evaluates_with_how_well_it_is_calibrated(
    export, tmp_path, monkeypatch
):
    monkeypatch.setattr(Pipeline, "_beats_heuristic", lambda *_: True)  # in so small a shop that is a matter of chance
    found = read_export(export)
    schedule = Schedule.weekly(found.dataset, SPLIT_MS)
    pipeline = Pipeline(found, schedule, seeds=(3,), progress=lambda *_: None, ranker=RankerKind.TREES)
    fitted = pipeline.run()
    assert fitted.measured["all", "ranker"][0].means()["recall_at_10"] > 0.7
    folder = tmp_path / write(fitted, pipeline, tmp_path)
    check(folder)
    assert fitted.ranking is not None
    scores = core_rs.Engine().load_bundle(str(folder)).score(fitted.ranking.features)
    assert np.abs(scores - fitted.ranking.ranker.predict(fitted.ranking.features)).max() <= 1e-5
    metrics = json.loads((folder / "manifest.json").read_text())["metrics"]
    for when in ("before", "after"):
        error = metrics[f"purchase/calibration_error_{when}"]
        assert 0 <= error["low"] <= error["value"] <= error["high"] < 0.2


def test_an_action_that_followed_too_few_candidates_is_left_out_and_the_ranker_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "_beats_heuristic", lambda self, trial: self._fit(self._trial(trial)) is not None)
    bought = purchases().filter(pl.col("time_ms") < SPLIT_MS)
    returned = bought.filter(pl.col("time_ms") < SPLIT_MS - 60 * DAY).with_columns(
        event_id=pl.format("r-{}", "event_id"), event_type=pl.lit("return"), time_ms=pl.col("time_ms") + DAY
    )
    pl.concat([bought, returned]).write_parquet(tmp_path / "events.parquet")
    write_tables(tmp_path)
    found, told = read_export(tmp_path), []
    schedule = Schedule.weekly(found.dataset, SPLIT_MS)
    pipeline = Pipeline(found, schedule, seeds=(3,), progress=lambda *what: told.append(what))
    assert learnable_actions(pipeline.known) == ("purchase", "return")
    fitted = pipeline.run()
    assert (fitted.ranked_by, fitted.actions) == ("ranker", ("purchase",))
    assert any(what.startswith("leave out the action return: it followed ") for what, _ in told)
    check(tmp_path / write(fitted, pipeline, tmp_path))


def test_a_bundle_serves_in_the_time_zone_it_was_trained_for(trained):
    _, folder = trained
    core_rs.Engine(time_zone="UTC").load_bundle(str(folder))
    with pytest.raises(core_rs.BundleError, match=r"time zone UTC.*answers in Asia/Tokyo"):
        core_rs.Engine(time_zone="Asia/Tokyo").load_bundle(str(folder))


def test_seeds_are_told_apart_and_a_ranker_without_columns_does_not_read_them(export, tmp_path):
    found = read_export(export)
    pipeline = Pipeline(found, Schedule.weekly(found.dataset, SPLIT_MS), seeds=(3, 4), progress=lambda *_: None)
    everything = tuple(range(len(core_rs.feature_names())))
    compared = pipeline.compare({"full": (), "without all": everything})
    assert set(compared) == {(name, lost) for name in ("all", "explore") for lost in ("full", "without all")}
    full, blind = (compared["all", lost] for lost in ("full", "without all"))
    assert full[0].means() != full[1].means()
    assert blind[0].means() == blind[1].means()
    assert min(one.means()["recall_at_10"] for one in full) > blind[0].means()["recall_at_10"] + 0.2
    rows = lines_of({("all", "ranker"): full})
    assert [row["model"] for row in rows] == ["ranker, run 1", "ranker, run 2", "ranker, mean"]
    assert rows[2]["recall_at_10"] == pytest.approx((rows[0]["recall_at_10"] + rows[1]["recall_at_10"]) / 2)
    draw_recall({**compared, ("all", "heuristic"): blind}, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_where_all_visits_begin_at_midnight_summer_time_is_not_taken_for_an_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(Pipeline, "_beats_heuristic", lambda *_: True)
    turn_ms = SPLIT_MS - 42 * DAY
    lines = purchases().with_columns(pl.col("time_ms") // DAY * DAY - 42 * DAY)
    lines.filter(pl.col("time_ms") < turn_ms).write_parquet(tmp_path / "events.parquet")
    write_tables(tmp_path)
    (tmp_path / "meta.json").write_text('{"time_zone": "Europe/Berlin"}')
    found = read_export(tmp_path)
    schedule = Schedule.weekly(found.dataset, turn_ms)
    summer, winter = (dt.datetime.fromtimestamp(schedule.cuts[cut] / 1000, BERLIN).utcoffset() for cut in (0, -1))
    assert summer != winter
    fitted = Pipeline(found, schedule, seeds=(3,), progress=lambda *_: None).run()
    midnight = fitted.ranking.features[1:].copy()
    noon = midnight.copy()
    hour = [core_rs.feature_names().index(name) for name in ("hour_sin", "hour_cos")]
    midnight[:, hour], noon[:, hour] = (0, 1), (0, -1)
    np.testing.assert_array_equal(fitted.ranking.ranker.predict(noon), fitted.ranking.ranker.predict(midnight))


def test_what_the_data_have_nothing_of_is_not_compared(export):
    found = read_export(export)
    pipeline = Pipeline(found, Schedule.weekly(found.dataset, SPLIT_MS), seeds=(3,), progress=lambda *_: None)
    compared = pipeline.compare({name: lost for name, lost in variants().items() if name in {"full", "without device"}})
    assert {name: len(of_seeds) for (_, name), of_seeds in compared.items()} == {"full": 1, "without device": 0}
    assert {"set": "all", "model": "without device: not in the data"} in lines_of(compared)


def test_the_gate_finds_a_bundle_equal_to_itself_and_better_than_nothing_learnt(trained, pipeline, monkeypatch):
    fitted, folder = trained
    monkeypatch.setattr("trainers.gate.LEAST_VISITORS", VISITORS)
    installed = pipeline.shop.engine.active_model
    verdict = judge(pipeline, fitted, folder, tolerance=0.0)
    assert verdict.passed
    assert pipeline.shop.engine.active_model == installed != folder.name
    assert (verdict.low, verdict.high) == (0.0, 0.0)
    heuristic = replace(fitted, ranking=None)
    assert not judge(pipeline, heuristic, folder, tolerance=0.0).passed


def test_a_bundle_of_another_feature_table_is_measured_as_the_heuristic_that_would_serve(trained, pipeline, tmp_path):
    fitted, folder = trained
    other = shutil.copytree(folder, tmp_path / folder.name)
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "schema_hash": "0" * 16}))
    verdict = judge(pipeline, fitted, other, tolerance=0.0)
    assert not (other / "ranker.onnx").samefile(folder / "ranker.onnx")
    assert verdict.old < verdict.new


def test_the_window_begins_after_what_the_serving_bundle_learnt(trained):
    _, folder = trained
    manifest = json.loads((folder / "manifest.json").read_text())
    assert learnt_until(folder) == manifest["train_end_ms"]
    with pytest.raises(FileNotFoundError, match="name the folder of a bundle"):
        learnt_until(folder.parent)


def test_models_of_the_split_know_nothing_of_what_follows(export, trained, tmp_path):
    fitted, _ = trained
    blind = tmp_path / "blind"
    blind.mkdir()
    for name in ("events", "items", "placements"):
        (blind / f"{name}.parquet").write_bytes((export / f"{name}.parquet").read_bytes())
    (blind / "meta.json").write_text("{}")
    found = read_export(blind)
    pipeline = Pipeline(found, Schedule.weekly(found.dataset, SPLIT_MS), seeds=(3,), progress=lambda *_: None)
    again = pipeline.run()
    assert fitted.ranking is not None
    assert again.ranking is not None
    features = fitted.ranking.features
    np.testing.assert_array_equal(again.ranking.ranker.predict(features), fitted.ranking.ranker.predict(features))


async def test_what_is_served_is_what_was_measured_offline(export, trained, tmp_path):
    fitted, folder = trained
    settings = Settings(
        data_dir=tmp_path / "data", listen=ListenSettings(port=0), clock=ClockSettings(start=SPLIT, rate=0.0)
    )
    incoming = settings.bundle_dir / "incoming"
    incoming.mkdir(parents=True)
    folder.rename(incoming / folder.name)
    app = App(settings)
    address = await app.start()
    try:
        await serve(address, pl.read_parquet(export / "events.parquet"), folder.name)
        task = NextBasketQuestion().task(read_export(export).dataset, SPLIT_MS)
        served = await asyncio.to_thread(measure_served, address, task, lambda *_: None)
    finally:
        await app.stop()
    for name, measured in served.items():
        assert measured.means() == fitted.measured[name, "ranker"][0].means()


def test_the_command_says_what_is_missing(tmp_path):
    command = [sys.executable, "-m", "trainers", "evaluate", "--export", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "events.parquet is missing" in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr
