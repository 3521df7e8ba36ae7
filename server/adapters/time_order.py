"""Messages of several partitions, one after the other as the machines sent them."""

import heapq
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
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
    came_ms: int
    """When Kafka took it, by Kafka's clock."""
    after: int = 0
    """Offset in its log of the record that was sent before it; 0 where that is not known."""

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
        self._told: dict[str, int] = {}

    def begin(self, told: Mapping[str, int]) -> None:
        """Begin anew after the offsets that were told of each log."""
        self._queues.clear()
        self._told = {**told}

    def add(self, part: TopicPartition, messages: Iterable[Message]) -> None:
        """Let messages wait that follow those of the same partition that are there."""
        self._queues.setdefault(part, deque()).extend(messages)

    def count(self, part: TopicPartition) -> int:
        """Return how many messages of a partition wait."""
        return len(self._queues.get(part, ()))

    def take(
        self, limit: int, unread: Collection[TopicPartition], since_ms: float
    ) -> list[tuple[TopicPartition, Message]]:
        """Return up to `limit` messages in order, and let go of them.

        Parameters
        ----------
        limit : most messages to take
        unread : partitions that have more messages than were added; while none of one's waits, it may be the earliest
        since_ms : time of Kafka from which on a message waits for the one that its log sent before it
        """
        if not all(self.count(part) for part in unread):
            return []
        heads = [(queue[0].key, part) for part, queue in self._queues.items() if queue]
        heapq.heapify(heads)
        taken: list[tuple[TopicPartition, Message]] = []
        waiting: defaultdict[str, list[TopicPartition]] = defaultdict(list)
        while heads and len(taken) < limit:
            part = heads[0][1]
            queue = self._queues[part]
            message, origin = queue[0], queue[0].arrival.origin
            reached = self._told.get(origin, 0)
            if message.after > reached and message.came_ms > since_ms:
                waiting[origin].append(heapq.heappop(heads)[1])
                continue
            self._told[origin] = max(reached, message.arrival.origin_offset)
            taken.append((part, queue.popleft()))
            if queue:
                heapq.heapreplace(heads, (queue[0].key, part))
            elif part in unread:
                break
            else:
                heapq.heappop(heads)
            for one in waiting.pop(origin, ()):
                heapq.heappush(heads, (self._queues[one][0].key, one))
        return taken
