"""The protocol measured through the front door: every visitor is asked about over gRPC, as a shop would ask."""

from collections.abc import Callable

import grpc

from shopkeeper.calls import CHANNEL_OPTIONS
from shopkeeper.v1.recommendation_service_pb2_grpc import RecommendationServiceStub
from trainers.evaluate import Measured, measure, ranks_of_lists
from trainers.protocols import Task, tasks_of
from trainers.shop import SETS, known, request

_CALL_S = 10.0


def measure_served(address: str, task: Task, progress: Callable[[str, float], None]) -> dict[str, Measured]:
    """Return the quality of the running server at `address`, whose state must be as of the task's split, by set.

    Raises
    ------
    grpc.RpcError
        When the server cannot be reached or does not know a placement.
    """
    measured = {}
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        stub = RecommendationServiceStub(channel)
        for name, asked in tasks_of(task).items():
            lists = []
            for number, visitor in enumerate(asked.visitor.tolist()):
                wanted = request(known(asked.train.visitors[visitor]), SETS[name])
                (slate,) = stub.Recommend(wanted, timeout=_CALL_S).slates
                lists.append([item.item_id for item in slate.items])
                progress(f"ask for {SETS[name]}", (number + 1) / len(asked.visitor))
            measured[name] = measure(asked, ranks_of_lists(asked, lists))
    return measured
