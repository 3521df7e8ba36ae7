"""A bundle with content vectors and an encoder: learnt, checked, and met by the ranker as visitors meet it."""

import base64

import numpy as np
import polars as pl
import pytest

import core_rs
from server.bundle_check import check
from server.defaults import PLACEMENTS
from shopkeeper.v1.recommendation_service_pb2 import RecommendResponse
from tests.weekly_shop import DAY, ITEMS, SPLIT_MS, purchases
from trainers import parts
from trainers.dataset import read_export
from trainers.examples import Collector
from trainers.pipeline import Pipeline, write
from trainers.schedule import Schedule
from trainers.sequence.settings import Training
from trainers.shop import SETS, known

FILES = {"content_items.safetensors", "sequence.onnx", "sequence_items.safetensors", "sequence_golden.safetensors"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    purchases().filter(pl.col("time_ms") < SPLIT_MS).write_parquet(folder / "events.parquet")
    names = [f"i{number:02}" for number in range(ITEMS)]
    paths = [["GROCERY", f"aisle {number % 5}"] for number in range(ITEMS)]
    pl.DataFrame({"item_id": names, "category_path": paths}).write_parquet(folder / "items.parquet")
    payloads = [base64.b64encode(placement.SerializeToString()).decode() for placement in PLACEMENTS]
    pl.DataFrame({"payload": payloads}).write_parquet(folder / "placements.parquet")
    (folder / "meta.json").write_text("{}")
    split_ms = SPLIT_MS - 14 * DAY
    cuts = tuple(split_ms - 14 * DAY * number for number in (3, 2, 1))
    schedule = Schedule(split_ms, 14 * DAY, cuts, cuts[-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "DEFAULT_TRAINING", Training(epochs=2))
        yield Pipeline(
            read_export(folder), schedule, seeds=(3,), progress=lambda *_: None, parts=("content", "sequence")
        )


def test_what_is_learnt_with_parts_passes_the_check_and_is_what_visitors_meet(pipeline, tmp_path):
    fitted = pipeline.run()
    version = write(fitted, pipeline, tmp_path)
    check(tmp_path / version)
    assert {path.name for path in (tmp_path / version).iterdir()} >= FILES
    assert pipeline.shop.engine.stats()["sequence_vectors"] > 0
    column = core_rs.feature_names().index("source_sequence_ln")
    collector = Collector(pipeline.export.dataset, tuple(SETS.values()))
    met = collector.collect(pipeline.shop, fitted.actions, pipeline.schedule.split_ms + 14 * DAY).features[:, column]
    assert (met > 0).mean() > 0.1
    assert np.isfinite(met).all()
    pipeline.shop.install(tmp_path / version)
    assert pipeline.shop.engine.waiting == 0
    (plan,) = pipeline.shop.plans([known(pipeline.known.visitors[0])], "home_for_you")
    items = RecommendResponse.FromString(pipeline.shop.engine.finish(plan, None).response).slates[0].items
    assert any("sequence" in item.sources for item in items)
