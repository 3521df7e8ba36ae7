"""`Feed` from Kafka: the partitions that are ours, each from where the tables are.

The places are kept with the tables, never in Kafka, so rows and places cannot differ. Besides the offset of a partition
they hold, for each log that ships into it, the offset reached there: what a log ships again is not above that.

A reader of its own gets the records of all partitions in the order in which they were sent; one of a group, which has
some of the partitions, as they come.
"""

import math
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any, Final, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError

from server import telemetry
from server.adapters.kafka import LoopThread, check_places, connection_of, topic_name
from server.adapters.kafka_check import check_kafka
from server.adapters.time_order import Message, TimeOrder
from server.ports import NO_RECORD, Arrival, Batch, LogRecord, StoreError
from server.settings import KafkaSettings
from server.streams import FOLLOWED, TOPICS, arrival_of, is_foreign, number_of, offset_of

FETCH_S: Final = 0.5
"""Seconds that the sink's read gathers records, for large batches are cheap."""
_WAIT_MS: Final = 100
_PATIENCE_S: Final = 10.0
"""Seconds for which all wait for a partition that gives nothing, or for a record that was sent before another."""
_FRESH_S: Final = 3.0
"""Seconds for which an answer of a broker tells where a partition ends."""
_QUEUE_RECORDS: Final = 2_000
"""That wait of one partition; with more it is not read on."""
_SKEW_MS: Final = 60_000
"""By which a machine's clock may differ from Kafka's, and the most that a round takes."""
_CALL_S: Final = 30.0
_CLOSE_S: Final = 3.0

_Placed = tuple[TopicPartition, Message]
_Result = TypeVar("_Result")

_logger = structlog.get_logger(__name__)


class KafkaFeed(ConsumerRebalanceListener):  # type: ignore[misc]
    """`Feed` and `ArrivalFeed`; readers of one `group` share the partitions, one without a group reads all.

    Parameters
    ----------
    settings : brokers and topics
    group : name of the readers that share the work; empty reads alone
    topics : those to read
    """

    def __init__(self, settings: KafkaSettings, group: str = "", topics: Collection[str] = tuple(TOPICS)) -> None:
        self._settings = settings
        self._group = f"{settings.prefix}.{group}" if group else None
        self._reader = group or "follower"
        self._thread = LoopThread("kafka-consumer")
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: Callable[[], Mapping[str, int]] = dict
        self._names = {topic_name(settings, topic): topic for topic in topics}
        self._unplaced: set[TopicPartition] = set()
        self._reached: dict[TopicPartition, dict[str, int]] = {}
        self._order = TimeOrder()
        self._waiting_since: float | None = None
        self._has_all = set(FOLLOWED) <= set(topics)

    def begin(self, positions: Callable[[], Mapping[str, int]]) -> None:
        """Go on after the positions, which are asked for whenever a partition becomes ours."""
        self._positions = positions
        if self._group is None:
            self._reached = {}
            self._unplaced = self._parts()
        check_places(self._settings, positions())

    def read(self, limit: int) -> Batch:
        """Return up to `limit` records; each comes once, in order within its partition."""
        arrivals, positions = self._read(limit, FETCH_S)
        return Batch([arrival.record for arrival in arrivals], positions)

    def read_arrivals(self, limit: int) -> tuple[list[Arrival], dict[str, int]]:
        """Return what has come, at once, with the origins, and the places after it."""
        return self._read(limit, 0.0)

    def lag(self) -> int:
        """Return how many records there are to read in our partitions; where that is not known yet, one."""
        if self._consumer is None or self._unplaced:
            return 1
        return self._run(self._measure())

    def ends(self) -> dict[str, int]:
        """Return the last offset of each partition that still has records; for a feed without a group.

        Raises
        ------
        StoreError : one ends before our position
        """
        self._run(self._start())
        begins, ends = self._run(self._begins(self._parts())), self._run(self._ends(self._parts()))
        _check_ends(self._positions(), ends)
        return {_name(part): end - 1 for part, end in ends.items() if end > begins[part]}

    def missed(self) -> bool:
        """Return whether Kafka dropped records after our positions; for a feed without a group."""
        self._run(self._start())
        begins, positions = self._run(self._begins(self._parts())), self._positions()
        return any(positions.get(_name(part), begin) < begin - 1 for part, begin in begins.items())

    def begins(self) -> dict[tuple[str, int], int]:
        """Return the first offset that Kafka still has, by topic and partition; for a feed without a group."""
        self._run(self._start())
        begins = self._run(self._begins(self._parts()))
        return {(self._names[part.topic], part.partition): begin for part, begin in begins.items()}

    def close(self) -> None:
        """Let others read; may be repeated."""
        self._drop()
        self._thread.close()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Remember to place them: until then nothing is read from them."""
        self._reached.clear()
        self._unplaced = set(assigned)

    def on_partitions_revoked(self, _: Iterable[TopicPartition]) -> None:
        """Forget them; what was read and not stored is still stored, which does no harm."""
        self._reached.clear()
        telemetry.PARTITION_LAG_RECORDS.clear()

    def _read(self, limit: int, patience_s: float) -> tuple[list[Arrival], dict[str, int]]:
        self._run(self._start())
        self._place()
        return self._run(self._fetch(limit, patience_s))

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; where it fails, another consumer begins at the places that were kept."""
        try:
            return self._thread.run(work, _CALL_S)
        except Exception:
            self._drop()
            raise

    def _drop(self) -> None:
        """Let go of the consumer, whatever it says to that, and of what it read: nobody knows how far that went."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                self._thread.run(consumer.stop(), _CLOSE_S)
            except Exception:  # noqa: BLE001 - of no use to anybody
                self._thread.cancel()  # else it goes on as a member of the group, and nobody reads its partitions
                with suppress(Exception):
                    self._thread.run(consumer._client.close(), _CLOSE_S)  # noqa: SLF001 - `stop` did not come to it
        self._reached.clear()
        self._unplaced = set() if self._group else self._parts()

    def _parts(self) -> set[TopicPartition]:
        return {TopicPartition(name, part) for name in self._names for part in range(self._settings.partitions)}

    async def _start(self) -> None:
        if self._consumer is not None:
            return
        await check_kafka(self._settings, list(self._names.values()))
        consumer = AIOKafkaConsumer(
            **connection_of(self._settings),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # a place that is gone is looked at by `_place`
            isolation_level="read_committed",
            max_poll_interval_ms=600_000,
            session_timeout_ms=10_000,
            heartbeat_interval_ms=3_000,
            metadata_max_age_ms=30_000,
        )
        if self._group:
            consumer.subscribe(list(self._names), listener=self)
        else:
            consumer.assign(list(self._parts()))
        self._consumer = consumer
        await consumer.start()

    def _place(self) -> None:
        """Go to where the tables are in every partition that became ours; StoreError where one ends before that."""
        parts = self._unplaced
        if parts:
            positions = self._positions()
            begins, ends = self._run(self._begins(parts)), self._run(self._ends(parts))
            _check_ends(positions, ends)  # by a consumer that stays: who leaves the group disturbs the others
            self._run(self._seek(parts, positions, begins))

    async def _begins(self, parts: set[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await self._running.beginning_offsets(list(parts))
        return found

    async def _ends(self, parts: set[TopicPartition]) -> dict[TopicPartition, int]:
        found: dict[TopicPartition, int] = await self._running.end_offsets(list(parts))
        return found

    async def _seek(
        self, parts: set[TopicPartition], positions: Mapping[str, int], begins: Mapping[TopicPartition, int]
    ) -> None:
        if self._unplaced is not parts:  # they were dealt anew
            return
        for part in parts:
            name = _name(part)
            after = positions.get(name, begins[part] - 1)
            if gone := max(0, begins[part] - after - 1):
                telemetry.LOST_OFFSETS.inc(gone)
                _logger.error("records_gone", part=name, offsets=gone, fix="lengthen kafka.retention_hours")
            self._running.seek(part, after + 1 + gone)
            marks = {key: at for key, at in positions.items() if key.startswith(f"{name}/")}
            self._reached[part] = {key.removeprefix(f"{name}/"): at for key, at in marks.items()}
        self._unplaced = set()
        self._waiting_since = None
        origins = {origin for marks in self._reached.values() for origin in marks}
        self._order.begin({one: max(marks.get(one, 0) for marks in self._reached.values()) for one in origins})

    async def _fetch(self, limit: int, patience_s: float) -> tuple[list[Arrival], dict[str, int]]:
        """Read until there is enough, or nothing more, or for `patience_s`, but once at least."""
        arrivals: list[Arrival] = []
        places: dict[str, int] = {}
        deadline = time.monotonic() + patience_s
        while len(arrivals) < limit and self._reached:
            found = await (self._gather if self._group else self._sorted)(limit - len(arrivals))
            arrivals += self._news(found)
            for part, message in found:
                name = _name(part)
                places[name] = message.offset
                places[f"{name}/{message.arrival.origin}"] = self._reached[part][message.arrival.origin]
            if not found or time.monotonic() >= deadline:
                break
        return arrivals, places

    async def _gather(self, limit: int) -> list[_Placed]:
        """Return what comes, a partition after the other; of partitions of which much waits, nothing more."""
        wanted = [part for part in self._reached if self._order.count(part) < _QUEUE_RECORDS]
        found: dict[TopicPartition, list[ConsumerRecord]] = {}
        if wanted:
            with suppress(NoOffsetForPartitionError):  # it was dealt to us anew meanwhile
                found = await self._running.getmany(*wanted, timeout_ms=_WAIT_MS, max_records=limit)
        ours = [part for part in found if part in self._reached]  # others were taken from us meanwhile
        return [(part, self._message(part, one)) for part in ours for one in found[part]]

    async def _sorted(self, limit: int) -> list[_Placed]:
        """Return what may be told by now in the order in which it was sent."""
        if taken := await self._take(limit):
            return taken
        for part, messages in groupby(await self._gather(limit), itemgetter(0)):
            self._order.add(part, [message for _, message in messages])
        return await self._take(limit)

    async def _take(self, limit: int) -> list[_Placed]:
        """Return what waits and is next, and after some time without regard to partitions that give nothing."""
        unread = await self._unread()
        silent = {part for part in unread if not self._order.count(part)}
        since_s = time.monotonic() - _PATIENCE_S
        if not silent:
            self._waiting_since = None
        elif self._waiting_since is None and any(map(self._order.count, self._reached)):
            self._waiting_since = time.monotonic()
        is_late = self._waiting_since is not None and self._waiting_since < since_s
        return self._order.take(limit, unread - silent if is_late else unread, since_s if self._has_all else math.inf)

    async def _unread(self) -> set[TopicPartition]:
        """Return the partitions that have more than was read of them, or of which nothing was heard lately."""
        running, since_ms = self._running, 1_000 * (time.time() - _FRESH_S)
        return {
            part
            for part in self._reached
            if (running.last_poll_timestamp(part) or 0) < since_ms
            or await running.position(part) < (running.last_stable_offset(part) or 0)
        }

    async def _measure(self) -> int:
        total = 0
        for part in self._running.assignment():
            with suppress(IllegalStateError):  # it was taken from us meanwhile
                position = await self._running.position(part)
                end = self._running.highwater(part)
                lag = 1 if end is None else max(0, end - position) + self._order.count(part)
                labels = self._reader, self._names[part.topic], str(part.partition)
                telemetry.PARTITION_LAG_RECORDS.labels(*labels).set(lag)
                total += lag
        return total

    @property
    def _running(self) -> Any:
        if self._consumer is None:
            raise StoreError("the feed is closed")
        return self._consumer

    def _news(self, found: Iterable[_Placed]) -> Iterable[Arrival]:
        """Yield the arrivals that were not there before."""
        for part, message in found:
            arrival, reached = message.arrival, self._reached[part]
            if arrival.origin_offset > reached.get(arrival.origin, -1) or not arrival.origin:
                reached[arrival.origin] = arrival.origin_offset
                yield arrival
            else:
                telemetry.REPEATED_RECORDS.inc()

    def _message(self, part: TopicPartition, message: ConsumerRecord) -> Message:
        arrival, came_ms = self._arrival(part, message), message.timestamp
        sent_ms = number_of(message.headers, "sent_ms", came_ms)
        if abs(sent_ms - came_ms) > _SKEW_MS:  # the sender's clock was wrong
            sent_ms = came_ms
        if not arrival.origin or came_ms < 1_000 * (time.time() - _PATIENCE_S) - _SKEW_MS:
            return Message(message.offset, arrival, sent_ms)  # what was sent before it came long ago
        return Message(message.offset, arrival, sent_ms, number_of(message.headers, "after", 0), time.monotonic())

    def _arrival(self, part: TopicPartition, message: ConsumerRecord) -> Arrival:
        topic = self._names[part.topic]
        offset = offset_of(topic, part.partition, message.offset)
        bad = Arrival(LogRecord(offset, NO_RECORD, message.timestamp, "", "", message.value or b""), "", 0)
        try:
            arrival = arrival_of(message.headers, message.value or b"", offset)
        except ValueError:
            return bad
        return bad if is_foreign(arrival.record.kind, topic) else arrival


def _name(part: TopicPartition) -> str:
    return f"{part.topic}/{part.partition}"


def _check_ends(positions: Mapping[str, int], ends: Mapping[TopicPartition, int]) -> None:
    """Raise StoreError where a partition ends before the position there: what it has is not what was read from it."""
    for part, end in ends.items():
        if (position := positions.get(_name(part), -1)) >= end:
            raise StoreError(
                f"{_name(part)} was read up to offset {position} and ends at {end - 1}, so this is another Kafka; "
                "take a new kafka.prefix with an empty database and new data folders"
            )
