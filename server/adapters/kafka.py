"""What all talk with Kafka shares: how to connect, the thread it runs in, the topics."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from server.ports import StreamError, StreamUnavailableError
from server.settings import KafkaSettings
from server.streams import TOPICS

MAX_MESSAGE_BYTES: Final = 16_777_216
"""Of a batch on the wire; the largest record of an import fits."""

_FOR_EVER: Final = "-1"
_KEPT: Final = frozenset({"items", "documents"})
"""Topics that keep every record: a change of single fields, a default and a trial each need what came before."""
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_EXISTS: Final = 36
_COPIES: Final = 38
"""Error codes of a topic that is there, and of one with more copies than brokers."""
_ADMIN_S: Final = 30.0
_LINGER_S: Final = 0.05
"""Seconds in which connections with TLS take leave before their loop ends; else they would stay open."""

_Result = TypeVar("_Result")
_Names = Coroutine[Any, Any, list[str]]

_logger = structlog.get_logger(__name__)


class LoopThread:
    """Event loop in a thread of its own, for callers that have none."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_tell)
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _Result], timeout_s: float) -> _Result:
        """Return what `work` returns; it is cancelled after `timeout_s`.

        Raises
        ------
        StreamUnavailableError : it took too long, or Kafka could not be reached
        """
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, timeout_s), self._loop)
        try:
            return future.result()
        except TimeoutError as error:
            raise StreamUnavailableError(
                f"Kafka did not answer within {timeout_s:g} s; start it, or mend kafka.servers"
            ) from error
        except (KafkaError, OSError) as error:
            raise StreamUnavailableError(f"Kafka cannot be used now ({error}); look at [kafka]") from error

    def cancel(self) -> None:
        """End what still runs."""
        asyncio.run_coroutine_threadsafe(_cancel_others(), self._loop).result()

    def close(self) -> None:
        """End what still runs, the loop and its thread; may be repeated."""
        if not self._loop.is_closed():
            self.cancel()
            asyncio.run_coroutine_threadsafe(asyncio.sleep(_LINGER_S), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say in a line what nobody awaits, as that a broker ended a connection."""
    _logger.debug("kafka_client", message=context.get("message"), reason=repr(context.get("exception")))


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def connection_of(settings: KafkaSettings) -> dict[str, Any]:
    """Return the arguments that say where Kafka is and who we are."""
    security = ("SASL_" if settings.user else "") + ("SSL" if settings.tls else "PLAINTEXT")
    login = {
        "sasl_mechanism": settings.mechanism,
        "sasl_plain_username": settings.user,
        "sasl_plain_password": settings.password.get_secret_value(),
    }
    return {
        "bootstrap_servers": settings.servers.split(","),
        "client_id": "shopkeeper",
        "security_protocol": security,
        "ssl_context": ssl.create_default_context(cafile=settings.ca) if settings.tls else None,
        **(login if settings.user else {}),
    }


def topic_name(settings: KafkaSettings, topic: str) -> str:
    """Return the name of a topic on the brokers."""
    return f"{settings.prefix}.{topic}"


def missing_topics(settings: KafkaSettings) -> list[str]:
    """Return the topics that are not there, and check those that are.

    Raises
    ------
    StreamUnavailableError : Kafka does not answer
    StreamError : a setting does not fit, or a topic has another number of partitions, so records would lose their order
    """
    return _as_admin(settings, _missing)


def make_topics(settings: KafkaSettings) -> list[str]:
    """Make the topics that are missing and return their names; raises what `missing_topics` does."""
    return _as_admin(settings, _make)


def _as_admin(settings: KafkaSettings, work: Callable[[AIOKafkaAdminClient, KafkaSettings], _Names]) -> list[str]:
    from server.adapters.kafka_check import check_kafka  # noqa: PLC0415 - it needs how to connect

    async def connected() -> list[str]:
        await check_kafka(settings)
        admin = AIOKafkaAdminClient(**connection_of(settings))
        try:
            await admin.start()
            return await work(admin, settings)
        finally:
            await admin.close()

    thread = LoopThread("kafka-admin")
    try:
        return thread.run(connected(), _ADMIN_S)
    finally:
        thread.close()


async def _missing(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> list[str]:
    names = {topic: topic_name(settings, topic) for topic in TOPICS}
    described = await admin.describe_topics(list(names.values()))
    there = {one["topic"]: len(one["partitions"]) for one in described if one["partitions"]}
    for name, count in there.items():
        if count != settings.partitions:
            raise StreamError(f"topic {name} has {count} partitions; set kafka.partitions={count}")
    return [topic for topic, name in names.items() if name not in there]


async def _make(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> list[str]:
    missing = [_new_topic(settings, topic) for topic in await _missing(admin, settings)]
    answer = await admin.create_topics(missing) if missing else None
    for name, code, *text in answer.topic_errors if answer else ():
        if code not in {0, _EXISTS}:
            fix = "set kafka.replication to the number of brokers at most" if code == _COPIES else "look at [kafka]"
            raise StreamError(f"topic {name} cannot be made (code {code}: {text}); {fix}")
    return [topic.name for topic in missing]


def _new_topic(settings: KafkaSettings, topic: str) -> NewTopic:
    retention_ms = settings.retention_hours * _HOUR_MS
    ended = {"retention.ms": str(retention_ms), "segment.ms": str(min(retention_ms, _DAY_MS))}  # segments end whole
    configs = {
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "retention.bytes": _FOR_EVER,
        **(ended if retention_ms and topic not in _KEPT else {"retention.ms": _FOR_EVER}),
    }
    if settings.replication > 2:  # noqa: PLR2004 - of three copies, two are enough to go on
        configs["min.insync.replicas"] = "2"
    return NewTopic(topic_name(settings, topic), settings.partitions, settings.replication, topic_configs=configs)
