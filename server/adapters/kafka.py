"""What all talk with Kafka shares: how to connect, the thread it runs in, the names of topics."""

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

import structlog
from aiokafka.errors import KafkaError

from server.ports import StoreError, StreamUnavailableError
from server.settings import KafkaSettings
from server.streams import PROFILES, TOPICS

MAX_MESSAGE_BYTES: Final = 16_777_216
"""Of a batch on the wire; the largest record of an import fits."""

_LINGER_S: Final = 0.05
"""Seconds in which connections with TLS take leave before their loop ends; else they would stay open."""

_Result = TypeVar("_Result")

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
    """Say in a line what nobody awaits; that a broker ended a connection is no news."""
    fault = context.get("exception")
    tell = _logger.debug if fault is None or isinstance(fault, KafkaError | OSError) else _logger.warning
    tell("kafka_client", message=context.get("message"), reason=repr(fault), fix="none: it is connected again")


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


def check_places(settings: KafkaSettings, places: Iterable[str]) -> None:
    """Look whether the names of places that were reached belong to our topics.

    Raises
    ------
    StoreError : one is of another prefix
    """
    ours = {topic_name(settings, topic) for topic in (*TOPICS, PROFILES)}
    if strange := sorted(name for name in places if name.partition("/")[0] not in ours):
        raise StoreError(
            f"{strange[0]} was read before, which kafka.prefix {settings.prefix!r} does not have; set the prefix back, "
            "or take an empty database and new data folders"
        )
