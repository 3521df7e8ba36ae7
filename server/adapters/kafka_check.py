"""A look before use: whether Kafka answers as the settings say, and has the topics. Each fault names its setting."""

import asyncio
import ssl
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiokafka.conn import AIOKafkaConnection, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from server.adapters.endpoints import host_and_port, unverified_context
from server.adapters.kafka import connection_of, topic_name
from server.ports import StreamOutdatedError, StreamSettingsError, StreamUnavailableError
from server.settings import KafkaSettings
from server.streams import TOPICS

_ASK_S: Final = 5.0
SERVICE_S: Final = 5.0
"""Seconds in which brokers that are up, and start or had hung, are in service."""
_SETTLE_S: Final = 2.0
"""Seconds in which each broker hears of a topic that was just made."""
_PAUSE_S: Final = 0.1
FORBIDDEN: Final = 29
"""Error code of what we may not do with a topic."""
_LOGIN: Final = (IllegalSaslStateError, SaslAuthenticationFailed, UnsupportedSaslMechanismError)

_LOGIN_FIX: Final = "set kafka.user, kafka.mechanism and the environment variable SHOPKEEPER__KAFKA__PASSWORD"


class Topic(NamedTuple):
    """What a broker says of a topic."""

    error_code: int
    partition_count: int
    copy_count: int
    """Of the partition that has the fewest; 0 where there is no partition."""


async def check_kafka(settings: KafkaSettings, topics: Collection[str]) -> None:
    """Return once a broker answers and has the topics.

    Raises
    ------
    StreamUnavailableError : none answers
    StreamSettingsError : a setting does not fit what answers, or the topics
    StreamOutdatedError : topics are missing
    """
    deadline = time.monotonic() + _SETTLE_S
    while missing := set(topics) - (await known_topics(settings)).keys():
        if time.monotonic() > deadline:
            names = ", ".join(topic_name(settings, topic) for topic in sorted(missing))
            raise StreamOutdatedError(f"Kafka {settings.servers} lacks the topics {names}; run `shopkeeper migrate`")
        await asyncio.sleep(_PAUSE_S)


async def known_topics(settings: KafkaSettings) -> dict[str, Topic]:
    """Return those of our topics that are there; raises what `check_kafka` does, but for missing ones."""
    names = {topic_name(settings, topic): topic for topic in TOPICS}
    found = await _ask_all(settings, list(names))
    for name, topic in found.items():
        if topic.error_code == FORBIDDEN:
            raise StreamSettingsError(f"Kafka lets kafka.user {settings.user!r} not use the topic {name}; grant it")
        if (count := topic.partition_count) not in {0, settings.partitions}:
            raise StreamSettingsError(
                f"topic {name} has {count} partitions; set kafka.partitions={count}, or where it had another number "
                "before, take a new kafka.prefix: keys have moved"
            )
    return {names[name]: topic for name, topic in found.items() if topic.partition_count}


async def _ask_all(settings: KafkaSettings, names: Sequence[str]) -> dict[str, Topic]:
    """Return what the first broker that answers says; where none does, raise what a setting is to blame for first."""
    asked = [asyncio.ensure_future(_ask(settings, server, names)) for server in settings.servers.split(",")]
    faults: list[StreamUnavailableError] = []
    try:
        for answer in asyncio.as_completed(asked):
            try:
                return await answer
            except StreamUnavailableError as fault:
                faults.append(fault)
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    raise next((fault for fault in faults if isinstance(fault, StreamSettingsError)), faults[0])


async def _ask(settings: KafkaSettings, server: str, names: Sequence[str]) -> dict[str, Topic]:
    connection: AIOKafkaConnection | None = None
    try:
        connection = await _connected(server, _arguments(settings))
        answer = await _answer(connection, names)
    except ssl.SSLCertVerificationError as error:
        raise StreamSettingsError(
            f"the certificate of Kafka {server} is not trusted ({error}); set kafka.ca to the file of its authority, "
            "or kafka.servers to a name that it has"
        ) from error
    except _LOGIN as error:
        is_needless = isinstance(error, IllegalSaslStateError)
        fix = "leave kafka.user empty" if is_needless else _LOGIN_FIX
        raise StreamSettingsError(f"Kafka {server} takes no such login ({error}); {fix}") from error
    except (KafkaError, OSError, ValueError) as error:  # the last of a name that is none, or an odd answer to a login
        raise await _explained(settings, server, error, has_answered=connection is not None) from error
    finally:
        if connection is not None:
            connection.close()
    if not answer["brokers"]:
        raise no_service(settings)
    return {one["topic"]: _topic_of(one) for one in answer["topics"]}


async def _answer(connection: AIOKafkaConnection, names: Sequence[str]) -> dict[str, Any]:
    """Return what the broker says once one is in service, or after `SERVICE_S`."""
    deadline = time.monotonic() + SERVICE_S
    answer = await _metadata(connection, names)
    while not answer["brokers"] and time.monotonic() < deadline:
        await asyncio.sleep(_PAUSE_S)
        with suppress(KafkaError, OSError):  # it went away meanwhile, which is no fault of the login
            answer = await _metadata(connection, names)
    return answer


async def _metadata(connection: AIOKafkaConnection, names: Sequence[str]) -> dict[str, Any]:
    answer = await connection.send(MetadataRequest(list(names), allow_auto_topic_creation=False))
    found: dict[str, Any] = answer.to_object()
    return found


def no_service(settings: KafkaSettings) -> StreamUnavailableError:
    """Return the fault of brokers that answer and do not work: they start, hang, or lack their controller."""
    return StreamUnavailableError(
        f"Kafka {settings.servers} has no broker in service; wait until one is, or look at the logs of the brokers"
    )


def _topic_of(answer: Mapping[str, Any]) -> Topic:
    copies = [len(part["replicas"]) for part in answer["partitions"]]
    return Topic(answer["error_code"], len(copies), min(copies, default=0))


def _arguments(settings: KafkaSettings) -> dict[str, Any]:
    try:
        return connection_of(settings)
    except OSError as error:
        text = f"kafka.ca {settings.ca} cannot be used ({error}); name the PEM file of the brokers' authority"
        raise StreamSettingsError(text) from error


async def _connected(server: str, arguments: Mapping[str, Any]) -> AIOKafkaConnection:
    host, port = host_and_port(server)
    others = {name: value for name, value in arguments.items() if name != "bootstrap_servers"}
    return await create_conn(host, port, request_timeout_ms=int(_ASK_S * 1000), **others)


async def _explained(
    settings: KafkaSettings, server: str, error: Exception, *, has_answered: bool
) -> StreamUnavailableError:
    """Return the fault with the setting that is to blame, which the broker itself does not tell."""
    if has_answered and isinstance(error, KafkaConnectionError) and not settings.user:
        return StreamSettingsError(f"Kafka {server} ends the connection of who does not log in ({error}); {_LOGIN_FIX}")
    if not isinstance(error, TimeoutError) and await _speaks(server, tls=not settings.tls):
        speaks, wanted = ("no TLS", "false") if settings.tls else ("TLS", "true")
        return StreamSettingsError(
            f"Kafka {server} speaks {speaks}; set kafka.tls={wanted}, or kafka.servers to another port"
        )
    why = str(error) or type(error).__name__
    return StreamUnavailableError(f"Kafka {server} does not answer ({why}); start it, or mend kafka.servers")


async def _speaks(server: str, *, tls: bool) -> bool:
    """Return whether a broker answers there with or without TLS, whoever we are and whoever it is."""
    protocol, context = ("SSL", unverified_context()) if tls else ("PLAINTEXT", None)
    try:
        connection = await _connected(server, {"security_protocol": protocol, "ssl_context": context})
    except (KafkaError, OSError, ValueError):
        return False
    connection.close()
    return True
