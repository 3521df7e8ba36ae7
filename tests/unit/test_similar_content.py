"""The source of like items: the nearest content vectors of the bundle."""

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from core_rs import BundleError, Engine, schema_hash
from server.defaults import PLACEMENTS
from shopkeeper.v1 import record_pb2
from shopkeeper.v1.common_pb2 import Context, ItemFilter
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.recommendation_service_pb2 import (
    REASON_SIMILAR_CONTENT,
    PlacementRequest,
    RecommendRequest,
    RecommendResponse,
)

NOW = 1_700_000_000_000
COUNT = 700
LIMIT = 600


def bundle(folder, vectors, **clusters):
    folder.mkdir()
    names = [f"i{n}" for n in range(COUNT)]
    offsets = np.cumsum([0, *map(len, names)]).astype(np.uint32)
    save_file(
        {"bytes": np.frombuffer("".join(names).encode(), np.uint8), "offsets": offsets}, folder / "items.safetensors"
    )
    if vectors is not None:
        save_file({"vectors": vectors, **clusters}, folder / "content_items.safetensors")
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    facts = {"version": folder.name, "schema_hash": schema_hash(), "create_ms": NOW, "files": files}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def shop(folder, load_after=0):
    """Return an engine that loads the bundle after so many records; half of the items come after its activation."""
    placement = Placement(placement_id="like", sources=[SourceUse(source="similar_content", limit=LIMIT)])
    items = [
        (record_pb2.RECORD_KIND_ITEM, record_pb2.ItemChange(item=Item(item_id=f"i{n}", brand=f"b{n % 30}")))
        for n in range(COUNT)
    ]
    messages = [
        *items[: COUNT // 2],
        (record_pb2.RECORD_KIND_DOCUMENT, record_pb2.DocumentChange(placement=placement)),
        (record_pb2.RECORD_KIND_ACTIVATION, record_pb2.Activation(version=folder.name)),
        *items[COUNT // 2 :],
    ]
    records = [(at, kind, NOW, message.SerializeToString()) for at, (kind, message) in enumerate(messages, 1)]
    engine = Engine()
    engine.apply(records[:load_after])
    engine.load_bundle(folder)
    engine.apply(records[load_after:])
    return engine


def ask(engine, anchors, size=10, **rest):
    wanted = PlacementRequest(placement_id="like", anchor_item_ids=anchors, page_size=size, **rest)
    request = RecommendRequest(request_id="r", context=Context(visitor_id="v"), placements=[wanted])
    plan = engine.begin(request.SerializeToString(), NOW)
    return RecommendResponse.FromString(engine.finish(plan, None).response)


def unit(rows, width=8):
    vectors = np.abs(np.random.default_rng(0).normal(size=(rows, width))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_nearest_to_the_mean_of_the_anchors_are_proposed(tmp_path):
    vectors = unit(COUNT)
    engine = shop(bundle(tmp_path / "one", vectors))
    response = ask(engine, ["i3", "i9"], 500)
    near = [n for n in np.argsort(-(vectors @ vectors[[3, 9]].mean(axis=0)), kind="stable") if n not in {3, 9}]
    items = response.slates[0].items
    assert len({item.item_id for item in items[:50]} & {f"i{n}" for n in near[:50]}) >= 48
    assert len(items) == 500
    assert {item.reason for item in items} == {REASON_SIMILAR_CONTENT}
    assert items[0].because_item_id == "i3"
    assert list(response.degraded) == []


def test_of_a_narrow_filter_the_nearest_are_proposed_once(tmp_path):
    vectors = unit(COUNT)
    engine = shop(bundle(tmp_path / "one", vectors))
    items = ask(engine, ["i3"], 20, filter=ItemFilter(brands=["b7"])).slates[0].items
    brand = np.arange(7, COUNT, 30)
    nearest = brand[np.argsort(-(vectors[brand] @ vectors[3]), kind="stable")][:20]
    shown = [int(item.item_id[1:]) for item in items]
    assert len(set(shown)) == 20
    assert len(set(shown) & set(nearest.tolist())) >= 19
    assert {item.reason for item in items} == {REASON_SIMILAR_CONTENT}


def test_an_item_without_a_vector_and_a_bundle_without_vectors_leave_the_slate_full(tmp_path):
    vectors = unit(COUNT)
    vectors[3] = 0
    response = ask(shop(bundle(tmp_path / "one", vectors)), ["i3"])
    assert (len(response.slates[0].items), list(response.degraded)) == (10, [])
    response = ask(shop(bundle(tmp_path / "none", None)), ["i3"])
    assert (len(response.slates[0].items), list(response.degraded)) == (10, ["content_vectors_missing"])


def test_items_of_the_nearest_cluster_alone_are_proposed(tmp_path):
    vectors, far = unit(COUNT), np.arange(COUNT) % 2 == 1
    vectors[far] = np.roll(vectors[far], 1, axis=1) * 0.5
    centres = np.stack([vectors[~far].mean(axis=0), -vectors[far].mean(axis=0)]).astype(np.float32)
    engine = shop(bundle(tmp_path / "one", vectors, centres=centres, clusters=far.astype(np.uint32)))
    shown = {int(item.item_id[1:]) for item in ask(engine, ["i4"], 100).slates[0].items}
    assert len(shown) == 100
    assert not shown & set(np.flatnonzero(far).tolist())


def test_clusters_that_do_not_fit_are_refused(tmp_path):
    clusters = {"centres": np.zeros((1, 8), np.float32), "clusters": np.ones(COUNT, np.uint32)}
    with pytest.raises(BundleError, match=r"content_items.safetensors: .* name the centre of each item"):
        Engine().load_bundle(bundle(tmp_path / "one", unit(COUNT), **clusters))


def test_a_default_placement_asks_for_no_part_that_a_bundle_may_lack(tmp_path):
    engine = shop(bundle(tmp_path / "none", None))
    changes = [record_pb2.DocumentChange(placement=one).SerializeToString() for one in PLACEMENTS]
    engine.apply([(COUNT + 3 + at, record_pb2.RECORD_KIND_DOCUMENT, NOW, change) for at, change in enumerate(changes)])
    for placement in PLACEMENTS:
        wanted = PlacementRequest(placement_id=placement.placement_id, anchor_item_ids=["i3"])
        request = RecommendRequest(request_id="r", context=Context(visitor_id="v"), placements=[wanted])
        plan = engine.begin(request.SerializeToString(), NOW)
        assert (
            "content_vectors_missing" not in RecommendResponse.FromString(engine.finish(plan, None).response).degraded
        )


def test_answers_do_not_depend_on_when_the_bundle_was_loaded(tmp_path):
    folder = bundle(tmp_path / "one", unit(COUNT))
    moments = (0, 1, COUNT // 2, COUNT // 2 + 2, COUNT + 2)
    engines = [shop(folder, load_after) for load_after in moments]
    assert len({ask(engine, ["i3", "i690"], 500).SerializeToString() for engine in engines}) == 1
    engines[0].save_snapshot(str(tmp_path / "snapshot"))
    engines[-1].load_snapshot(str(tmp_path / "snapshot"))
    assert ask(engines[-1], ["i3", "i690"], 500) == ask(engines[0], ["i3", "i690"], 500)


@pytest.mark.parametrize(
    ("vectors", "text"),
    [
        (unit(COUNT - 1), "699 rows for 700 items"),
        (np.zeros(COUNT, np.float32), r"shape \[700\]"),
        (np.full((COUNT, 2), np.nan, np.float32), "not finite"),
        (np.zeros((COUNT, 2), np.float64), "not F32"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, vectors, text):
    with pytest.raises(BundleError, match=text):
        Engine().load_bundle(bundle(tmp_path / "one", vectors))
