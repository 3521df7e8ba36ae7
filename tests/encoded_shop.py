"""A shop whose bundle encodes histories: the vector of a visitor is the sum of those of the items last met."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.timestamp_pb2 import Timestamp
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from core_rs import Engine, schema_hash
from shopkeeper.v1 import record_pb2
from shopkeeper.v1.common_pb2 import CONSENT_PURPOSE_PERSONALIZATION, Consent, Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_VIEW, Event, EventItem
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Placement, SourceUse
from shopkeeper.v1.profile_service_pb2 import Profile
from shopkeeper.v1.recommendation_service_pb2 import PlacementRequest, RecommendRequest, RecommendResponse

NOW = 1_700_000_000_000
WIDTH = 16
LENGTH = 12
FILES = ("sequence.onnx", "sequence_items.safetensors", "sequence_golden.safetensors")


def item_vectors(count, seed=0, width=WIDTH):
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def encoder(vectors, scale=1.0):
    """Return the graph; what its table lacks is read as one unknown item, whose vector is zeros."""
    table = np.pad(vectors * scale, ((1, 1), (0, 0)))
    nodes = [
        helper.make_node("Clip", ["items", "least", "most"], ["rows"]),
        helper.make_node("Gather", ["table", "rows"], ["events"]),
        helper.make_node("ReduceSum", ["events", "axes"], ["vector"], keepdims=0),
    ]
    constants = {
        "table": table.astype(np.float32),
        "least": np.int64(0),
        "most": np.int64(len(table) - 1),
        "axes": np.array([1], np.int64),
    }
    return graph_of(nodes, constants)


def graph_of(nodes, constants, *, inputs=("items", "actions", "gaps"), output="vector"):
    sides = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "length"]) for name in inputs]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["b", "width"])]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "encoder", sides, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_encoder(folder, vectors, graph=None):
    """Write the three files of an encoder into `folder`."""
    items = np.random.default_rng(1).integers(0, len(vectors) + 2, (4, LENGTH))
    known = np.pad(vectors, ((1, 1), (0, 0)))
    inputs = {"items": items, "actions": np.minimum(items, 1), "gaps": items * 0}
    save_file({**inputs, "vector": known[items].sum(axis=1).astype(np.float32)}, folder / FILES[2])
    save_file({"vectors": vectors}, folder / FILES[1])
    onnx.save(graph or encoder(vectors), folder / FILES[0])


def write_bundle(folder, names, vectors, *, without=()):
    """Write a bundle of an encoder and nothing else; `vectors` may be None."""
    folder.mkdir()
    offsets = np.cumsum([0, *map(len, names)]).astype(np.uint32)
    text = np.frombuffer("".join(names).encode(), np.uint8)
    save_file({"bytes": text, "offsets": offsets}, folder / "items.safetensors")
    if vectors is not None:
        write_encoder(folder, vectors)
    for name in without:
        (folder / name).unlink()
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    facts = {"version": folder.name, "schema_hash": schema_hash(), "create_ms": NOW, "files": files}
    (folder / "manifest.json").write_text(json.dumps(facts))
    return folder


def view(*item_ids, visitor="v", user="", at_ms=NOW, kind=EVENT_TYPE_VIEW):
    event = Event(
        event_type=kind,
        context=Context(visitor_id=visitor, user_id=user),
        items=[EventItem(item_id=item_id) for item_id in item_ids],
        event_time=Timestamp(seconds=at_ms // 1000, nanos=at_ms % 1000 * 1_000_000),
    )
    return record_pb2.RECORD_KIND_EVENT, event


def answer_of(visitor, *, granted):
    consents = [Consent(purpose=CONSENT_PURPOSE_PERSONALIZATION, granted=granted)]
    return record_pb2.RECORD_KIND_PROFILE, Profile(visitor_id=visitor, consents=consents)


def erasure(visitor):
    return record_pb2.RECORD_KIND_ERASURE, record_pb2.Erasure(visitor_id=visitor)


def activation(version, **options):
    return record_pb2.RECORD_KIND_ACTIVATION, record_pb2.Activation(version=version, **options)


class EncodedShop:
    """Engine with items `i0` … and a placement that shows what the source `sequence` proposes."""

    def __init__(self, count=40, **options):
        self.engine = Engine(**options)
        self.count = count
        placement = Placement(placement_id="next", sources=[SourceUse(source="sequence")])
        self.sessions = {}
        self.put(
            *((record_pb2.RECORD_KIND_ITEM, record_pb2.ItemChange(item=Item(item_id=f"i{n}"))) for n in range(count))
        )
        self.put((record_pb2.RECORD_KIND_DOCUMENT, record_pb2.DocumentChange(placement=placement)))

    def put(self, *messages, at_ms=NOW):
        start = self.engine.offset + 1
        self.engine.apply(
            [(start + n, kind, at_ms, message.SerializeToString()) for n, (kind, message) in enumerate(messages)]
        )

    def load(self, folder):
        self.engine.load_bundle(str(folder))
        path = folder / FILES[0]
        if path.exists():
            self.sessions[folder.name] = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def install(self, folder):
        self.load(folder)
        self.put(activation(folder.name))

    def vectors(self, histories):
        inputs = {"items": histories.items, "actions": histories.actions, "gaps": histories.gaps}
        return self.sessions[histories.version].run(["vector"], inputs)[0]

    def encode(self, count=64):
        """Encode who waits; return how many got a vector."""
        done = 0
        while len(histories := self.engine.take_histories(count)):
            done += self.engine.set_vectors(histories, self.vectors(histories))
        return done

    def ask(self, visitor="v", *, user="", now_ms=NOW, size=10):
        request = RecommendRequest(
            request_id="r",
            context=Context(visitor_id=visitor, user_id=user),
            placements=[PlacementRequest(placement_id="next", page_size=size)],
        )
        plan = self.engine.begin(request.SerializeToString(), now_ms)
        return RecommendResponse.FromString(self.engine.finish(plan, None).response)
