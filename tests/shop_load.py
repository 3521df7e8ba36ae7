"""Load on a server that is being hurt: events whose fate is known one by one, and pages that have to come."""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Self

import grpc

from shopkeeper.v1 import catalog_service_pb2, event_service_pb2, profile_service_pb2, recommendation_service_pb2
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import EVENT_TYPE_PURCHASE, Event, EventItem
from shopkeeper.v1.event_service_pb2 import EventResult
from shopkeeper.v1.item_pb2 import Item
from tests.shop_process import ShopProcess

ITEMS = 200
VISITORS = 20
BATCH = 20
PAGE = 20
PAGE_S = 30.0
"""Within which a page has to come while servers start beside it on the same cores."""
LINES = 2
"""Of an event, so rows of the table `events`."""


def event(event_id: str, chance: random.Random) -> Event:
    """Return a purchase of two items."""
    return Event(
        event_id=event_id,
        event_type=EVENT_TYPE_PURCHASE,
        context=Context(visitor_id=f"visitor-{chance.randrange(VISITORS)}"),
        items=[EventItem(item_id=f"item-{chance.randrange(ITEMS)}", quantity=1) for _ in range(LINES)],
    )


def fill_catalogue(shop: ShopProcess) -> None:
    items = [Item(item_id=f"item-{n}", category_path=[f"c{n % 7}"]) for n in range(ITEMS)]
    request = catalog_service_pb2.UpsertItemsRequest(items=items)
    shop.call("CatalogService/UpsertItems", request.SerializeToString())


def home(visitor: int) -> bytes:
    """Return the request of a visitor's home page."""
    return recommendation_service_pb2.RecommendRequest(
        request_id=f"r{visitor}",
        context=Context(visitor_id=f"visitor-{visitor}"),
        placements=[recommendation_service_pb2.PlacementRequest(placement_id="home_for_you", page_size=PAGE)],
    ).SerializeToString()


def answers(shop: ShopProcess) -> list[bytes]:
    """Return the bytes of every visitor's home page."""
    return [shop.call("RecommendationService/Recommend", home(visitor)) for visitor in range(VISITORS)]


def is_full(shop: ShopProcess) -> bool:
    """Return whether a server has enough of the catalogue for a page, which may be the work of another one."""
    return item_count(answers(shop)[0]) == PAGE


def served_count(shop: ShopProcess) -> int:
    """Return how many events the live states of all visitors have, as the engine counted them one by one."""
    return sum(_event_count(shop, f"visitor-{visitor}") for visitor in range(VISITORS))


def _event_count(shop: ShopProcess, visitor_id: str) -> int:
    request = profile_service_pb2.GetProfileRequest(visitor_id=visitor_id).SerializeToString()
    try:
        answer = shop.call("ProfileService/GetProfile", request)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return 0
        raise
    return profile_service_pb2.GetProfileResponse.FromString(answer).live_state.event_count


def item_count(answer: bytes) -> int:
    (slate,) = recommendation_service_pb2.RecommendResponse.FromString(answer).slates
    return len(slate.items)


class Load(threading.Thread):
    """Records batches of events, of which the last has no id and has to be rejected.

    It ends when it is told, or, unless it is `patient`, when the server goes away. A batch without an answer is sent
    again: at once by a patient load, else by the next one, which gets it as `backlog`.
    """

    def __init__(self, name: str, backlog: Sequence[Event] = (), *, patient: bool = False) -> None:
        super().__init__()
        self.acknowledged: set[str] = set()
        self.rejected_count = 0
        self.sent_count = 0
        self.unanswered = list(backlog)
        self.faults: Counter[grpc.StatusCode] = Counter()
        self._name = name
        self._patient = patient
        self._chance = random.Random(name)
        self._stopping = threading.Event()
        self._shop: ShopProcess | None = None

    def on(self, shop: ShopProcess) -> Self:
        self._shop = shop
        self.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        for number in count():
            self.unanswered = self.unanswered or self._batch(number)
            while not self._send():
                if self._stopping.is_set() or not self._patient:
                    return
                time.sleep(0.02)
            if self._stopping.is_set():
                return

    def _batch(self, number: int) -> list[Event]:
        named = [event(f"e-{self._name}-{number}-{n}", self._chance) for n in range(BATCH)]
        return [*named, event("", self._chance)]

    def _send(self) -> bool:
        """Return whether the batch was answered, and note what became of its events."""
        request = event_service_pb2.RecordEventsRequest(events=self.unanswered)
        assert self._shop is not None
        try:
            answer = self._shop.call("EventService/RecordEvents", request.SerializeToString())
        except grpc.RpcError as error:
            self.faults[error.code()] += 1
            return False
        except ValueError:  # the channel closes with the server
            return False
        results = event_service_pb2.RecordEventsResponse.FromString(answer).results
        *named, nameless = [result.status for result in results]
        assert set(named) <= {EventResult.STATUS_ACCEPTED, EventResult.STATUS_DUPLICATE}
        assert nameless == EventResult.STATUS_REJECTED
        self.sent_count += len(results)
        self.rejected_count += 1
        self.acknowledged |= {sent.event_id for sent in self.unanswered[:-1]}
        self.unanswered = []
        return True


class Visits(threading.Thread):
    """Asks for home pages until it is told to stop; each has to come, full and soon."""

    def __init__(self, shop: ShopProcess) -> None:
        super().__init__()
        self._shop = shop
        self._stopping = threading.Event()
        self.seconds: list[float] = []
        self.faults: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        for number in count():
            if self._stopping.wait(0.01):
                return
            started = time.monotonic()
            try:
                answer = self._shop.call("RecommendationService/Recommend", home(number % VISITORS), timeout_s=PAGE_S)
            except grpc.RpcError as error:
                self.faults.append(f"{error.code()}: {error.details()}")
                continue
            self.seconds.append(time.monotonic() - started)
            if (items := item_count(answer)) < PAGE:
                self.faults.append(f"{items} items")
