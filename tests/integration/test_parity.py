"""For every kind of model: what is served over gRPC is what offline evaluation sees and what the trainer says itself.

Each kind is asked about at least 1,000 pairs of a visitor, or an item looked at, and an item.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import core_rs
from server.app import App
from server.settings import ClockSettings, ListenSettings, Settings
from shopkeeper.v1 import common_pb2, placement_pb2
from shopkeeper.v1 import recommendation_service_pb2 as pb
from shopkeeper.v1.placement_service_pb2 import UpsertPlacementRequest
from shopkeeper.v1.placement_service_pb2_grpc import PlacementServiceStub
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from tests.weekly_shop import (
    ITEMS,
    SPLIT,
    SPLIT_MS,
    VISITORS,
    activate,
    import_history,
    purchases,
    views,
    write_tables,
)
from trainers.base import Progress, Trainer, no_progress
from trainers.bundle import FittedRanking, ManifestFacts, write_bundle
from trainers.dataset import Dataset, read_export
from trainers.item_to_item import NeighbourFile
from trainers.network_ranker import NetworkRanker
from trainers.pipeline import Pipeline
from trainers.ranker import Rows
from trainers.recommender import NOBODY, Queries, Recommender
from trainers.schedule import Schedule
from trainers.sequential_rules import SequentialRules
from trainers.shop import Shop
from trainers.tree_ranker import TreeRanker

FEATURES = core_rs.feature_names()
SOURCES = ("also_viewed", "also_bought", "bought_together", "next_basket", "user_to_user", "similar_content")
TOLERANCE = 1e-5
LEAST_CASES = 1_000


class ServedRules(SequentialRules, NeighbourFile):
    """Sequential rules in place of what was also viewed, as a shop might serve them."""

    file = "also_viewed.safetensors"


class Vectors(Trainer):
    """Content vectors of random directions, as a shop might bring them."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, dataset: Dataset, progress: Progress = no_progress) -> Self:
        vectors = np.abs(np.random.default_rng(self.seed).normal(size=(dataset.n_items, 16)))
        self.vectors_ = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        progress(1.0)
        return self

    def tensors(self) -> Mapping[str, Mapping[str, NDArray[np.float32]]]:
        return {"content_items.safetensors": {"vectors": self.vectors_}}


class Asked(NamedTuple):
    """Answers about one visitor or anchor, item by item in the order shown."""

    row: int
    items: NDArray[np.int64]
    served: NDArray[np.float32]
    offline: NDArray[np.float32]
    served_score: NDArray[np.float64]
    offline_score: NDArray[np.float64]
    weights: NDArray[np.float32]


class Answers(NamedTuple):
    models: dict[str, Trainer]
    rankers: dict[str, NetworkRanker | TreeRanker]
    asked: dict[tuple[str, str], list[Asked]]


def placement(name: str) -> placement_pb2.Placement:
    uses = SOURCES if name in {"all", "rules"} else (name,)
    sources = [placement_pb2.SourceUse(source=source, weight=1.0, limit=200) for source in uses]
    return placement_pb2.Placement(placement_id=name, sources=sources, use_model=name != "rules")


def questions(name: str) -> list[pb.RecommendRequest]:
    """Return a request for each visitor, or for each item that the product page of nobody shows."""
    by_item = name in {"also_viewed", "also_bought", "bought_together", "similar_content"}
    context = [common_pb2.Context(user_id="nobody" if by_item else f"v{row:02}") for row in range(VISITORS)]
    return [
        pb.RecommendRequest(
            request_id=f"{name}-{row}",
            context=context[row],
            placements=[
                pb.PlacementRequest(
                    placement_id=name, page_size=ITEMS, anchor_item_ids=[f"i{row:02}"] if by_item else []
                )
            ],
        )
        for row in range(ITEMS if by_item else VISITORS)
    ]


def read_trace(trace: pb.SlateTrace) -> tuple[list[str], NDArray[np.float32], NDArray[np.float64]]:
    rows = [[feature.value for feature in item.features] for item in trace.items]
    scores = np.array([item.base_score for item in trace.items])
    return [item.item_id for item in trace.items], np.array(rows, np.float32), scores


def compare(shop: Shop, row: int, request: pb.RecommendRequest, trace: pb.SlateTrace, ranker: object) -> Asked:
    """Ask the offline shop the same question and put its answers beside the served ones."""
    shown, served, served_score = read_trace(trace)
    plan = shop.engine.begin(request.SerializeToString(), SPLIT_MS)
    actions = ranker.predict(plan.features) if len(plan.features) else None
    answer = pb.RecommendResponse.FromString(shop.engine.finish(plan, actions).response)
    place = {item_id: number for number, item_id in enumerate(plan.item_ids)}
    scores = {item.item_id: item.score for item in answer.slates[0].items}
    assert set(shown) == set(scores)
    offline = plan.features[[place[item_id] for item_id in shown]] if len(plan.features) else served
    weights = np.array(plan.action_weights[0], np.float32)
    items = np.array([int(item_id[1:]) for item_id in shown])
    return Asked(row, items, served, offline, served_score, np.array([scores[name] for name in shown]), weights)


def learnt(
    folder: Path,
) -> tuple[Pipeline, tuple[str, ...], dict[str, Trainer], dict[str, NetworkRanker | TreeRanker], pl.DataFrame]:
    """Return actions, models and rankers of the generated shop as of the split, and the events before it."""
    lines = pl.concat([purchases(), views()]).filter(pl.col("time_ms") < SPLIT_MS)
    lines.write_parquet(folder / "events.parquet")
    write_tables(folder)
    export = read_export(folder)
    pipeline = Pipeline(export, Schedule.weekly(export.dataset, SPLIT_MS), seeds=(3,), progress=lambda *_: None)
    examples = pipeline._until_split(pipeline._until_validation(folder), folder)
    models = pipeline._enter(SPLIT_MS, examples.actions, folder)
    named: dict[str, Trainer] = {_source(model): model for model in models}
    named |= {"similar_content": Vectors().fit(pipeline.known), "rules": ServedRules().fit(pipeline.known)}
    rows = Rows.concatenate(examples.of_cuts)
    rankers = {"network": NetworkRanker(seed=3).fit(rows), "trees": TreeRanker(seed=3).fit(rows)}
    return pipeline, examples.actions, named, rankers, lines


def _source(model: Trainer) -> str:
    (file,) = model.tensors()
    return file.removesuffix(".safetensors")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """Serve a bundle with a network, then one with trees, rules in place of what was also viewed; ask both."""
    folder = tmp_path_factory.mktemp("parity")
    pipeline, actions, models, rankers, lines = learnt(folder)
    settings = Settings(
        data_dir=folder / "data", listen=ListenSettings(port=0), clock=ClockSettings(start=SPLIT, rate=0.0)
    )
    shop = Shop(lines, pipeline.export.items, [placement(name) for name in (*SOURCES, "all", "rules")], "UTC")
    shop.advance(SPLIT_MS)
    for kind, ranker in rankers.items():
        left_out = "rules" if kind == "network" else "also_viewed"
        used = [model for name, model in models.items() if name != left_out]
        features = np.random.default_rng(0).normal(size=(16, len(FEATURES))).astype(np.float32)
        facts = ManifestFacts(kind, 1, actions)
        write_bundle(settings.bundle_dir / "incoming", facts, pipeline.known, used, FittedRanking(ranker, features))
    return Answers(models, rankers, asyncio.run(ask_all(settings, shop, lines, rankers)))


async def ask_all(
    settings: Settings, shop: Shop, lines: pl.DataFrame, rankers: Mapping[str, NetworkRanker | TreeRanker]
) -> dict[tuple[str, str], list[Asked]]:
    app = App(settings)
    address = await app.start()
    asked: dict[tuple[str, str], list[Asked]] = {}
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await import_history(channel, lines)
            for name in (*SOURCES, "all", "rules"):
                await PlacementServiceStub(channel).UpsertPlacement(UpsertPlacementRequest(placement=placement(name)))
            stub = RecommendationServiceStub(channel)
            for kind, ranker in rankers.items():
                await activate(channel, kind)
                shop.install(settings.bundle_dir / kind)
                for name in (*SOURCES, "all", "rules"):
                    found = []
                    for row, request in enumerate(questions(name)):
                        reply = await stub.Explain(pb.ExplainRequest(request=request))
                        found.append(compare(shop, row, request, reply.traces[0], ranker))
                    asked[kind, name] = found
    finally:
        await app.stop()
    return asked


def of_items(model: Trainer, n_items: int) -> NDArray[np.float32]:
    """Return what a recommender itself says for a history of each single item."""
    assert isinstance(model, Recommender)
    every = np.arange(n_items)
    queries = Queries(
        visitor=np.full(n_items, NOBODY),
        offsets=np.arange(n_items + 1),
        item=every.astype(np.uint32),
        action=np.full(n_items, 3, np.uint8),
        time_ms=every * 0 + SPLIT_MS,
        n_items=n_items,
    )
    return model.score(queries)


def of_visitors(model: Trainer, n_items: int) -> NDArray[np.float32]:
    """Return the list of each visitor as a row of all items."""
    (tensors,) = model.tensors().values()
    rows = np.repeat(np.arange(len(tensors["offsets"]) - 1), np.diff(tensors["offsets"].astype(np.int64)))
    table = np.zeros((len(tensors["offsets"]) - 1, n_items), np.float32)
    table[rows, tensors["items"]] = tensors["scores"]
    return table


def of_vectors(model: Trainer, n_items: int) -> NDArray[np.float32]:
    """Return the likeness of all pairs as the search by bytes gives it, which is near the cosine."""
    assert isinstance(model, Vectors)
    items, scores = core_rs.VectorIndex(model.vectors_).search(model.vectors_, n_items)
    table = np.zeros((n_items, n_items), np.float32)
    np.put_along_axis(table, items.astype(np.int64), scores, axis=1)
    assert np.abs(table - model.vectors_ @ model.vectors_.T).max() < 0.02
    return table


SOURCE_KINDS: dict[str, tuple[str, str, Callable[[Trainer, int], NDArray[np.float32]]]] = {
    "also_viewed": ("network", "also_viewed", of_items),
    "also_bought": ("network", "also_bought", of_items),
    "bought_together": ("network", "bought_together", of_items),
    "rules": ("trees", "also_viewed", of_items),
    "next_basket": ("network", "next_basket", of_visitors),
    "user_to_user": ("network", "user_to_user", of_visitors),
    "similar_content": ("trees", "similar_content", of_vectors),
}
"""Model to the bundle and the source that serve it, and what the trainer itself says about all pairs."""


@pytest.mark.parametrize("name", SOURCE_KINDS)
def test_scores_of_sources_are_those_of_offline_evaluation_and_of_the_trainer(answers: Answers, name: str) -> None:
    bundle, source, own = SOURCE_KINDS[name]
    expected = np.log1p(own(answers.models[name], ITEMS))
    column = FEATURES.index(f"source_{source}_ln")
    cases = proposed = 0
    for asked in answers.asked[bundle, source]:
        served, offline = asked.served[:, column], asked.offline[:, column]
        np.testing.assert_allclose(served, offline, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(served, expected[asked.row, asked.items], rtol=0, atol=TOLERANCE)
        cases += len(served)
        proposed += np.count_nonzero(served)
    assert cases >= LEAST_CASES
    assert proposed >= LEAST_CASES / 5


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_scores_of_rankers_are_those_of_offline_evaluation_and_of_the_trainer(answers: Answers, kind: str) -> None:
    cases, values = 0, []
    for asked in answers.asked[kind, "all"]:
        np.testing.assert_allclose(asked.served, asked.offline, rtol=0, atol=TOLERANCE)
        expected = answers.rankers[kind].predict(asked.served) @ asked.weights
        np.testing.assert_allclose(asked.served_score, expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(asked.offline_score, expected, rtol=0, atol=TOLERANCE)
        cases += len(expected)
        values.append(expected)
    assert cases >= LEAST_CASES
    assert np.ptp(np.concatenate(values)) > 0.1


def test_scores_of_rules_are_those_of_offline_evaluation(answers: Answers) -> None:
    served = np.concatenate([asked.served_score for asked in answers.asked["network", "rules"]])
    offline = np.concatenate([asked.offline_score for asked in answers.asked["network", "rules"]])
    np.testing.assert_allclose(served, offline, rtol=0, atol=TOLERANCE)
    assert len(served) >= LEAST_CASES
    assert np.ptp(served) > 0.1
