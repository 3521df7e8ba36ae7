"""A bad bundle never serves; the one before goes on serving."""

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from server.app import App
from server.bundles import BundleStore
from server.errors import ServiceError
from server.models import Models
from server.settings import ListenSettings, Settings
from shopkeeper.aio import AsyncClient
from shopkeeper.calls import event
from shopkeeper.v1 import model_service_pb2 as pb
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.model_service_pb2_grpc import ModelServiceStub
from tests.bundle_maker import ITEMS, WIDTH, BundleMaker, model_of, ranker


def nan_ranker():
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Sub", ["sum", "sum"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["actions"]),
    ]
    return model_of(nodes, [numpy_helper.from_array(np.full((WIDTH, 1), 0.01, np.float32), "weights")])


def late_nan_ranker():
    """Right on its golden vectors, NaN for large features."""
    nodes = [
        helper.make_node("MatMul", ["features", "weights"], ["sum"]),
        helper.make_node("Mul", ["sum", "huge"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "scaled"], ["zero"]),
        helper.make_node("Add", ["sum", "zero"], ["same"]),
        helper.make_node("Sigmoid", ["same"], ["actions"]),
    ]
    weights = numpy_helper.from_array(np.full((WIDTH, 1), 0.01, np.float32), "weights")
    return model_of(nodes, [weights, numpy_helper.from_array(np.float32(1e36), "huge")])


def slow_ranker():
    size = 1_500
    nodes = [helper.make_node("MatMul", ["features", "wide"], ["x0"])]
    nodes += [helper.make_node("MatMul", [f"x{i}", "square"], [f"x{i + 1}"]) for i in range(12)]
    nodes += [
        helper.make_node("MatMul", ["x12", "narrow"], ["tail"]),
        helper.make_node("MatMul", ["features", "w"], ["s"]),
    ]
    nodes += [helper.make_node("Add", ["tail", "s"], ["sum"]), helper.make_node("Sigmoid", ["sum"], ["actions"])]
    arrays = {
        "wide": np.zeros((WIDTH, size), np.float32),
        "square": np.zeros((size, size), np.float32),
        "narrow": np.zeros((size, 1), np.float32),
        "w": np.full((WIDTH, 1), 0.01, np.float32),
    }
    return model_of(nodes, [numpy_helper.from_array(array, name) for name, array in arrays.items()])


def foreign_ranker():
    """Uses an operator that rankers do not need and that can take memory without end."""
    nodes = [
        helper.make_node("Shape", ["features"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("MatMul", ["zeros", "weights"], ["actions"]),
    ]
    return model_of(nodes, [numpy_helper.from_array(np.ones((WIDTH, 1), np.float32), "weights")])


def external_ranker():
    model = ranker(np.full((WIDTH, 1), 0.01, np.float32))
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")
    return model


def truncate(name):
    def change(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return change


def add_link(folder):
    (folder / "visitors.safetensors").symlink_to("/etc/passwd")


WIDE = np.full((WIDTH + 1, 1), 0.01, np.float32)
OTHER = np.full((WIDTH, 1), 0.02, np.float32)
BAD = {
    "truncated_ranker": ({"after": truncate("ranker.onnx")}, "ranker.onnx does not have the sha256"),
    "truncated_items": ({"after": truncate("items.safetensors")}, "items.safetensors does not have the sha256"),
    "missing_file": ({"after": lambda folder: (folder / "items.safetensors").unlink()}, "items.safetensors"),
    "unlisted_file": ({"after": lambda folder: (folder / "more.onnx").write_bytes(b"x")}, "more.onnx is not in"),
    "link": ({"after": add_link}, "no regular file"),
    "no_manifest": ({"after": lambda folder: (folder / "manifest.json").unlink()}, "manifest.json"),
    "broken_manifest": ({"after": truncate("manifest.json")}, "manifest"),
    "other_version": ({"manifest": {"version": "another"}}, "rename one"),
    "path_in_manifest": ({"manifest": {"files": {"../../x.onnx": "0" * 64}}}, "files"),
    "other_time_zone": ({"manifest": {"time_zone": "Asia/Tokyo"}}, "`time_zone` is UTC; set `time_zone` to Asia/Tokyo"),
    "other_features": ({"manifest": {"schema_hash": "0" * 16}}, "train it again"),
    "wrong_input": ({"graph": ranker(WIDE)}, "must be `features`"),
    "wrong_output": ({"graph": ranker(OTHER, output="scores")}, "must be `actions`"),
    "other_answers": ({"graph": ranker(OTHER)}, "golden vectors"),
    "nan": ({"graph": nan_ranker()}, "golden vectors"),
    "nan_for_large": ({"graph": late_nan_ranker()}, "NaN or infinity"),
    "slow": ({"graph": slow_ranker()}, "train a smaller model"),
    "foreign_operator": ({"graph": foreign_ranker()}, "uses operator"),
    "external_data": ({"graph": external_ranker()}, "external_data=False"),
}


@pytest.fixture
async def shop(tmp_path):
    app = App(Settings(data_dir=tmp_path, listen=ListenSettings(port=0)))
    address = await app.start()
    async with AsyncClient(address, timeout_s=60) as client:
        await client.upsert_items([Item(item_id=name) for name in ITEMS])
        await client.record([event(EventType.EVENT_TYPE_PURCHASE, f"v{i}", ITEMS) for i in range(3)])
        async with grpc.aio.insecure_channel(address) as channel:
            yield app, client, ModelServiceStub(channel), BundleMaker(tmp_path / "bundles" / "incoming")
    await app.stop()


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code().name, caught.value.details()


async def publish(stub, version):
    return await stub.PublishModel(pb.PublishModelRequest(version=version), timeout=60)


async def activate(stub, version):
    return await stub.ActivateModel(pb.ActivateModelRequest(version=version), timeout=60)


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_bundle_is_refused_with_its_fault(tmp_path, name):
    options, fault = BAD[name]
    store = BundleStore(tmp_path / "bundles", "UTC")
    version = BundleMaker(tmp_path / "bundles" / "incoming").make("bad", **options)
    with pytest.raises(ServiceError, match=fault) as caught:
        await store.publish(version)
    assert caught.value.reason == "BUNDLE_REJECTED"
    assert store.manifests() == []


async def test_a_good_bundle_is_published_activated_and_serves(shop):
    app, client, stub, bundles = shop
    published = (await publish(stub, bundles.make("v1"))).model
    assert published.state == pb.Model.STATE_PUBLISHED
    assert (await client.recommend("home_for_you", "v1")).model_version == ""
    assert (await activate(stub, "v1")).model.state == pb.Model.STATE_ACTIVE
    answer = await client.recommend("home_for_you", "v1")
    assert answer.model_version == "v1"
    assert not answer.degraded
    assert app.engine.active_model == "v1"
    card = (await stub.GetModel(pb.GetModelRequest(version="v1"))).model
    assert card.metrics[0].value == 0.5


async def test_after_a_refused_bundle_the_one_before_serves(shop):
    _, client, stub, bundles = shop
    await publish(stub, bundles.make("good"))
    await activate(stub, "good")
    bundles.make("bad", after=truncate("ranker.onnx"))
    assert (await refusal(publish(stub, "bad")))[0] == "FAILED_PRECONDITION"
    assert (await refusal(activate(stub, "bad")))[0] == "NOT_FOUND"
    assert (await client.recommend("home_for_you", "v1")).model_version == "good"


@pytest.mark.parametrize("name", ["ranker.onnx", "items.safetensors"])
async def test_a_bundle_damaged_after_it_was_published_is_not_activated(shop, tmp_path, name):
    _, client, stub, bundles = shop
    await publish(stub, bundles.make("rotten"))
    truncate(name)(tmp_path / "bundles" / "rotten")
    assert (await refusal(activate(stub, "rotten")))[0] == "DATA_LOSS"
    assert (await client.recommend("home_for_you", "v1")).model_version == ""


async def test_a_bundle_of_another_time_zone_is_refused_alike_wherever_it_is_to_serve(shop, tmp_path):
    _, client, stub, bundles = shop
    bundles.make("tokyo", manifest={"time_zone": "Asia/Tokyo"})
    refused = await refusal(publish(stub, "tokyo"))
    (tmp_path / "bundles" / "incoming" / "tokyo").rename(tmp_path / "bundles" / "tokyo")  # the setting was another then
    trial = pb.Trial(version="tokyo", mode=pb.Trial.MODE_SHADOW, share=0.5)
    tried = await refusal(stub.StartTrial(pb.StartTrialRequest(trial=trial), timeout=60))
    assert refused == tried == await refusal(activate(stub, "tokyo"))
    assert refused[0] == "FAILED_PRECONDITION"
    assert (await client.recommend("home_for_you", "v1")).model_version == ""


async def test_rollback_loads_nothing_and_the_bundle_before_serves(shop, monkeypatch):
    _, client, stub, bundles = shop
    assert (await refusal(stub.RollbackModel(pb.RollbackModelRequest())))[0] == "FAILED_PRECONDITION"
    for version in ("one", "two"):
        await publish(stub, bundles.make(version))
        await activate(stub, version)
    with monkeypatch.context() as patch:
        patch.setattr(Models, "_session", None)  # what loads a bundle would call it
        assert (await stub.RollbackModel(pb.RollbackModelRequest())).model.version == "one"
    assert (await client.recommend("home_for_you", "v1")).model_version == "one"
    listed = await stub.ListModels(pb.ListModelsRequest())
    assert {model.version: model.state for model in listed.models} == {"one": 2, "two": 1}
    assert (await refusal(stub.RollbackModel(pb.RollbackModelRequest())))[0] == "FAILED_PRECONDITION", "it went back"
    await activate(stub, "two")
    assert (await stub.RollbackModel(pb.RollbackModelRequest())).model.version == "one"


@pytest.mark.parametrize("version", ["", "../x", "incoming", "a/b", "x" * 65, "x" * 100_000])
async def test_a_version_that_is_no_folder_name_is_refused(shop, version):
    _, _, stub, _ = shop
    assert (await refusal(publish(stub, version)))[0] == "INVALID_ARGUMENT"
    assert (await refusal(activate(stub, version)))[0] == "INVALID_ARGUMENT"


async def test_the_active_bundle_serves_again_after_a_restart(tmp_path):
    settings = Settings(data_dir=tmp_path, listen=ListenSettings(port=0))
    versions = []
    for _ in range(2):
        app = App(settings)
        address = await app.start()
        async with AsyncClient(address, timeout_s=60) as client, grpc.aio.insecure_channel(address) as channel:
            if not app.engine.active_model:
                await client.upsert_items([Item(item_id=name) for name in ITEMS])
                stub = ModelServiceStub(channel)
                await publish(stub, BundleMaker(tmp_path / "bundles" / "incoming").make("kept"))
                await activate(stub, "kept")
            versions.append((await client.recommend("home_for_you", "v1")).model_version)
        await app.stop()
    assert versions == ["kept", "kept"]
