"""The topics on Kafka: made as set, compared with the settings, and changed where somebody asks for it."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from server.adapters import kafka_check
from server.adapters.kafka import MAX_MESSAGE_BYTES, LoopThread, connection_of, topic_name
from server.adapters.kafka_check import FORBIDDEN, Topic, known_topics, no_service
from server.ports import StreamSettingsError
from server.settings import KafkaSettings
from server.streams import TOPICS

_FOR_EVER: Final = "-1"
_KEPT: Final = frozenset({"items", "documents"})
"""Topics that keep every record: a change of single fields, a default and a trial each need what came before."""
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_EXISTS: Final = 36
_TOO_MANY_COPIES: Final = 38
"""Error codes of a topic that is there, and of one with more copies than brokers."""
_OF_TOPIC: Final = 1
"""Source of a config that was given to the topic, not taken from the broker."""
COPIES: Final = "copies"
"""Stands for the number of copies among the configs that are compared."""
_ADMIN_S: Final = 30.0
_PAUSE_S: Final = 0.2

_Result = TypeVar("_Result")
_Configs = dict[str, str]

DIFFERENCE_FIX: Final = (
    "mend [kafka], or `shopkeeper migrate --change-topics`; more copies are made by Kafka's kafka-reassign-partitions"
)


class Difference(NamedTuple):
    """Config of a topic, or the number of its `copies`, that is not as set."""

    topic: str
    config: str
    found: str
    wanted: str

    def __str__(self) -> str:
        """Return it as a line for people."""
        return f"{self.topic}: {self.config} is {self.found}, by the settings {self.wanted}"


def missing_topics(settings: KafkaSettings) -> list[str]:
    """Return the topics that are not there, and check those that are.

    Raises
    ------
    StreamUnavailableError : Kafka does not answer
    StreamSettingsError : a setting does not fit, or a topic has another number of partitions, which would end the order
    """
    return _on_a_thread(_missing(settings))


def make_topics(settings: KafkaSettings) -> list[str]:
    """Make the topics that are missing and return their names; raises what `missing_topics` does."""
    return _as_admin(settings, _make)


def differences(settings: KafkaSettings) -> list[Difference]:
    """Return what the topics that are there keep otherwise than set, whoever said so: the topic or its broker.

    Raises
    ------
    StreamUnavailableError : Kafka does not answer
    StreamSettingsError : we may not ask
    """
    return _as_admin(settings, _differences)


def change_topics(settings: KafkaSettings) -> list[Difference]:
    """Make the topics that are there keep what is set, and return what was changed; raises what `differences` does.

    Copies are added by Kafka's own tools only, for they move data.
    Where the settings keep records for less long, Kafka ends those that are older.
    """
    return _as_admin(settings, _change)


class _Admin(NamedTuple):
    """What it takes to ask for topics and to change them."""

    client: AIOKafkaAdminClient
    settings: KafkaSettings
    there: Mapping[str, Topic]


def _as_admin(settings: KafkaSettings, work: Callable[[_Admin], Coroutine[Any, Any, _Result]]) -> _Result:
    async def connected() -> _Result:
        there = await known_topics(settings)  # says what hinders a connection, which the client does not
        client = AIOKafkaAdminClient(**connection_of(settings))
        try:
            await client.start()
            await _await_service(client, settings)
            return await work(_Admin(client, settings, there))
        finally:
            await client.close()

    return _on_a_thread(connected())


async def _await_service(client: AIOKafkaAdminClient, settings: KafkaSettings) -> None:
    """Return once the client knows a controller: without one its requests fail by `None`, or by nothing to ask."""
    deadline = time.monotonic() + kafka_check.SERVICE_S
    while client._client.cluster.controller is None:  # noqa: SLF001 - it has no other way to tell
        if time.monotonic() > deadline:
            raise no_service(settings)
        await asyncio.sleep(_PAUSE_S)
        await client._client.force_metadata_update()  # noqa: SLF001 - as above


def _on_a_thread(work: Coroutine[Any, Any, _Result]) -> _Result:
    thread = LoopThread("kafka-admin")
    try:
        return thread.run(work, _ADMIN_S)
    finally:
        thread.close()


async def _missing(settings: KafkaSettings) -> list[str]:
    there = await known_topics(settings)
    return [topic for topic in TOPICS if topic not in there]


async def _make(admin: _Admin) -> list[str]:
    missing = [_new_topic(admin.settings, topic) for topic in TOPICS if topic not in admin.there]
    deadline = time.monotonic() + kafka_check.SERVICE_S
    while refused := await _refused(admin.client, missing):
        name, code, text, *_ = next((one for one in refused if one[1] != _TOO_MANY_COPIES), refused[0])
        if code != _TOO_MANY_COPIES or time.monotonic() > deadline:  # brokers that start may be enough soon
            fix = (
                "set kafka.replication to the number of brokers at most"
                if code == _TOO_MANY_COPIES
                else "look at [kafka]"
            )
            raise StreamSettingsError(f"topic {name} cannot be made (code {code}: {text}); {fix}")
        await asyncio.sleep(_PAUSE_S)
    return [topic.name for topic in missing]


async def _refused(client: AIOKafkaAdminClient, topics: list[NewTopic]) -> list[tuple[Any, ...]]:
    """Make the topics; return name, code and text of each that is not there then."""
    if not topics:
        return []
    answer = await client.create_topics(topics)
    return [one for one in answer.topic_errors if one[1] not in {0, _EXISTS}]


async def _differences(admin: _Admin) -> list[Difference]:
    return [one for ones in (await _compare(admin)).values() for one in ones]


async def _compare(admin: _Admin) -> dict[str, list[Difference]]:
    """Return the differences of each topic that is there."""
    found: dict[str, list[Difference]] = {}
    for topic, facts in admin.there.items():
        name = topic_name(admin.settings, topic)
        wanted, is_now = _configs(admin.settings, topic, facts.copy_count), await _described(admin.client, name)
        pairs = [(key, is_now.get(key, ("",))[0], value) for key, value in wanted.items()]
        copies = (COPIES, str(facts.copy_count), str(admin.settings.replication))
        found[name] = [Difference(name, *pair) for pair in [*pairs, copies] if not _is_as_wanted(*pair)]
    return found


async def _change(admin: _Admin) -> list[Difference]:
    compared = await _compare(admin)
    changes = {name: [one for one in ones if one.config != COPIES] for name, ones in compared.items()}
    for name, ones in changes.items():
        if ones:
            # What this request does not name goes back to what the broker has, so it names all that the topic has.
            is_now = await _described(admin.client, name)
            own = {key: value for key, (value, source) in is_now.items() if source == _OF_TOPIC}
            configs = own | {one.config: one.wanted for one in ones}
            (answer,) = await admin.client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs)])
            for code, text, *_ in answer.resources:
                if code:
                    raise StreamSettingsError(f"topic {name} cannot be changed (code {code}: {text}); {_fix(code)}")
    return [one for ones in changes.values() for one in ones]


async def _described(client: AIOKafkaAdminClient, name: str) -> dict[str, tuple[str, int]]:
    """Return value and source of each config of a topic."""
    (answer,) = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    ((code, text, _, _, entries),) = answer.resources
    if code:
        raise StreamSettingsError(f"configs of topic {name} cannot be read (code {code}: {text}); {_fix(code)}")
    return {key: (value, source) for key, value, _, source, *_ in entries}


def _fix(code: int) -> str:
    return "allow it kafka.user" if code == FORBIDDEN else "look at the brokers"


def _is_as_wanted(config: str, found: str, wanted: str) -> bool:
    """Return whether a config does what it shall: more copies or room, and shorter segments, do no harm.

    >>> _is_as_wanted("segment.ms", "5", "9"), _is_as_wanted("segment.ms", "10", "9"), _is_as_wanted("x", "5", "9")
    (True, False, False)
    """
    if config == "segment.ms" and found:
        return int(found) <= int(wanted)
    if config in {"min.insync.replicas", "max.message.bytes", COPIES} and found:
        return int(found) >= int(wanted)
    return found == wanted


def _configs(settings: KafkaSettings, topic: str, replicas: int) -> _Configs:
    """Return what a topic of so many copies shall have."""
    retention_ms = settings.retention_hours * _HOUR_MS
    ended = {"retention.ms": str(retention_ms), "segment.ms": str(min(retention_ms, _DAY_MS))}  # segments end whole
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "retention.bytes": _FOR_EVER,
        **(ended if retention_ms and topic not in _KEPT else {"retention.ms": _FOR_EVER}),
        **({"min.insync.replicas": "2"} if replicas > 2 else {}),  # noqa: PLR2004 - two of three are enough to go on
    }


def _new_topic(settings: KafkaSettings, topic: str) -> NewTopic:
    configs = _configs(settings, topic, settings.replication)
    return NewTopic(topic_name(settings, topic), settings.partitions, settings.replication, topic_configs=configs)
