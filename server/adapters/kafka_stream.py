"""`Stream` to Kafka: one batch a partition and round, acknowledged by all copies in sync."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder

from server.adapters.kafka import MAX_MESSAGE_BYTES, LoopThread, connection_of, topic_name
from server.adapters.kafka_check import check_kafka
from server.ports import LogRecord, StreamUnavailableError
from server.settings import KafkaSettings
from server.streams import FOLLOWED, TOPICS, headers_of, key_of, partition_of, topic_of

BATCH_BYTES: Final = 524_288
ROUND_S: Final = 30.0
"""Seconds a round may take; a producer that took longer is given up, with what it still had in work."""
_CLOSE_S: Final = 2.0


class KafkaStream:
    """`Stream` whose records go to the partition of their key.

    A round is the longest row of records that fits one batch a partition. The next begins when it is acknowledged as a
    whole, so in a partition the records of one log come in order, and what comes again comes after its first time.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._thread = LoopThread("kafka-producer")
        self._producer: AIOKafkaProducer | None = None
        self._sent_ms = 0
        self._last = ("", 0)
        """Log of which records were sent last, and the offset there of the last that others follow."""

    def send(self, records: Sequence[LogRecord], origin: str) -> int:
        """Return how many records, from the first on, are acknowledged now; at least one."""
        try:
            return self._thread.run(self._send(records, origin), ROUND_S)
        except StreamUnavailableError:
            self._give_up()
            raise

    def close(self) -> None:
        """Give up what is in work and end the connection, within seconds; may be repeated."""
        self._give_up()
        self._thread.close()

    async def _send(self, records: Sequence[LogRecord], origin: str) -> int:
        producer = await self._started()
        batches: dict[tuple[str, int], BatchBuilder] = {}
        count = 0
        after = self._last[1] if self._last[0] == origin else 0
        self._sent_ms = max(self._sent_ms, time.time_ns() // 1_000_000)  # a clock that is set back changes no order
        for record in records:
            place = topic_of(record.kind), partition_of(key_of(record), self._settings.partitions)
            if place not in batches:
                batches[place] = producer.create_batch()
            if not _append(batches[place], record, headers_of(record, origin, self._sent_ms, after)):
                break
            count += 1
            after = record.offset if place[0] in FOLLOWED else after
        filled = [(place, batch) for place, batch in batches.items() if batch.record_count()]
        sent = [
            await producer.send_batch(batch, topic_name(self._settings, topic), partition=partition)
            for (topic, partition), batch in filled
        ]
        await asyncio.gather(*sent)
        self._last = origin, after
        return count

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            await check_kafka(self._settings, TOPICS)
            producer = AIOKafkaProducer(
                **connection_of(self._settings),
                acks="all",
                enable_idempotence=True,
                compression_type="lz4",
                max_batch_size=BATCH_BYTES,
                max_request_size=MAX_MESSAGE_BYTES,
                request_timeout_ms=int(ROUND_S * 1000),
            )
            try:
                await producer.start()
            except BaseException:
                await _stopped(producer)
                raise
            self._producer = producer
        return self._producer

    def _give_up(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(StreamUnavailableError):
                self._thread.run(_stopped(producer), 2 * _CLOSE_S)


async def _stopped(producer: AIOKafkaProducer) -> None:
    """Close a producer; its own flush may wait for ever, its sender and its connections do not."""
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.stop(), _CLOSE_S)
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer._sender.close(), _CLOSE_S)  # noqa: SLF001 - `stop` stays in its flush
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        await asyncio.wait_for(producer.client.close(), _CLOSE_S)


def _append(batch: BatchBuilder, record: LogRecord, headers: list[tuple[str, bytes]]) -> bool:
    key = key_of(record).encode()
    return batch.append(timestamp=None, key=key, value=record.payload, headers=headers) is not None
