"""Messages of several partitions, one after the other as the machines sent them."""

import heapq
import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from aiokafka import TopicPartition

from server.ports import Arrival

Key = tuple[int, str, int]


class Message(NamedTuple):
    """Record as it lies in a partition."""

    offset: int
    arrival: Arrival
    sent_ms: int
    """When its round was sent, Unix milliseconds; all records of a round have one time."""
    after: int = 0
    """Offset in its log of the record that was sent before it; 0 where that is not known."""
    seen_s: float = -math.inf
    """When it was read, by the monotonic clock; long ago where nobody needs to wait for the one before it."""

    @property
    def key(self) -> Key:
        """Return what messages are ordered by: a log's records of one round, too, are in the log's order."""
        return self.sent_ms, self.arrival.origin, self.arrival.origin_offset


class TimeOrder:
    """Merges partitions by the time at which their messages were sent; a partition keeps its own order.

    What an anonymous visitor did lies in another partition than the login that gives it to a user, and an item in
    another topic than its events. Who read one partition to its end and then the next would see them in an order that
    never was.
    """

    def __init__(self) -> None:
        self._queues: Final[dict[TopicPartition, deque[Message]]] = {}
        self._places: Final[dict[tuple[str, int], TopicPartition]] = {}
        self._told: dict[str, int] = {}

    def begin(self, told: Mapping[str, int]) -> None:
        """Begin anew after the offsets that were told of each log."""
        self._queues.clear()
        self._places.clear()
        self._told = {**told}

    def add(self, part: TopicPartition, messages: Sequence[Message]) -> None:
        """Let messages wait that follow those of the same partition that are there."""
        self._queues.setdefault(part, deque()).extend(messages)
        self._places.update(((one.arrival.origin, one.arrival.origin_offset), part) for one in messages)

    def count(self, part: TopicPartition) -> int:
        """Return how many messages of a partition wait."""
        return len(self._queues.get(part, ()))

    def take(
        self, limit: int, unread: Collection[TopicPartition], since_s: float
    ) -> list[tuple[TopicPartition, Message]]:
        """Return up to `limit` messages in order, and let go of them.

        Parameters
        ----------
        limit : most messages to take
        unread : partitions that have more messages than were added; while none of one's waits, it may be the earliest
        since_s : messages that were seen later than this wait for the one that their log sent before them
        """
        if not all(self.count(part) for part in unread):
            return []
        free = [(queue[0].key, part) for part, queue in self._queues.items() if queue]
        heapq.heapify(free)
        taken: list[tuple[TopicPartition, Message]] = []
        waiting: set[TopicPartition] = set()
        while len(taken) < limit and (part := heapq.heappop(free)[1] if free else self._of_ring(waiting)):
            if part not in waiting and self._waits(part, since_s):
                waiting.add(part)
                continue
            waiting.discard(part)
            taken.append((part, self._pop(part)))
            if part in unread and not self.count(part):
                break
            ready = {one for one in waiting if not self._waits(one, since_s)}
            waiting -= ready
            for one in ready | ({part} if self.count(part) else set()):
                heapq.heappush(free, (self._queues[one][0].key, one))
        return taken

    def _pop(self, part: TopicPartition) -> Message:
        message = self._queues[part].popleft()
        origin, offset = message.arrival.origin, message.arrival.origin_offset
        self._told[origin] = max(self._told.get(origin, 0), offset)
        self._places.pop((origin, offset), None)
        return message

    def _waits(self, part: TopicPartition, since_s: float) -> bool:
        head = self._queues[part][0]
        return head.seen_s > since_s and head.after > self._told.get(head.arrival.origin, 0)

    def _of_ring(self, waiting: Collection[TopicPartition]) -> TopicPartition | None:
        """Return the earliest of partitions that wait for each other, as where two logs were sent at one time."""
        for start in waiting:
            path: list[TopicPartition] = []
            part: TopicPartition | None = start
            while part is not None and part not in path:
                path.append(part)
                head = self._queues[part][0]
                part = self._places.get((head.arrival.origin, head.after))
            if part is not None:
                return min(path[path.index(part) :], key=lambda one: self._queues[one][0].key)
        return None
