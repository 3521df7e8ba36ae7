"""Topics are made as set; those that are there are compared with the settings, and changed only when asked."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from server import exchange
from server.adapters import kafka_topics
from server.adapters.kafka_topics import COPIES, DIFFERENCE_FIX, change_topics, differences, make_topics, missing_topics
from server.cli.main import app
from server.ports import StreamSettingsError
from server.settings import KafkaSettings
from server.streams import TOPICS
from tests.kafka_shop import kafka_settings, topics
from tests.servers import KafkaServer
from tests.table_shop import wait_until


@pytest.fixture
def settings(kafka_address: str) -> KafkaSettings:
    return topics(kafka_settings(kafka_address))


def test_topics_are_made_once_and_checked(kafka_address: str) -> None:
    settings = kafka_settings(kafka_address)
    assert missing_topics(settings) == list(TOPICS)
    assert make_topics(settings) == [f"{settings.prefix}.{topic}" for topic in TOPICS]
    assert make_topics(settings) == missing_topics(settings) == []
    with pytest.raises(StreamSettingsError, match=r"events has 3 partitions; set kafka\.partitions=3"):
        make_topics(settings.model_copy(update={"partitions": 4}))


async def test_topics_that_a_new_machine_needs_whole_are_kept_whole(settings: KafkaSettings) -> None:
    """An activation and its trial, a default and the shop's own edit have one key: each needs what came before."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.servers)
    await admin.start()
    found = {}
    try:
        for topic in TOPICS:
            configs = await configs_of(admin, f"{settings.prefix}.{topic}")
            found[topic] = configs["cleanup.policy"], configs["retention.ms"]
    finally:
        await admin.close()
    ended = ("delete", str(settings.retention_hours * 3_600_000))
    kept = ("delete", "-1")
    assert found == {"events": ended, "decisions": ended, "items": kept, "documents": kept}


async def configs_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """Return the configs of a topic, once the broker knows it."""
    for _ in range(200):
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        ((*_, entries),) = answer.resources
        if entries:
            return {name: value for name, value, *_ in entries}
        await asyncio.sleep(0.05)
    pytest.fail(f"Kafka does not know {topic}")


def test_migrate_makes_the_topics_that_doctor_misses(
    kafka_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = kafka_settings(kafka_address)
    for name in ("servers", "prefix", "partitions", "replication"):
        monkeypatch.setenv(f"SHOPKEEPER__KAFKA__{name.upper()}", str(getattr(settings, name)))

    def answer(command: str) -> dict[str, Any]:
        found = CliRunner().invoke(app, [command, "--data-dir", str(tmp_path), "--json"]).stdout
        answer: dict[str, Any] = json.loads(found)
        return answer

    def checked() -> tuple[str, str]:
        return next((row["state"], row["then"]) for row in answer("doctor")["checks"] if row["check"] == "kafka")

    assert checked() == ("fail", "`shopkeeper migrate`")
    assert answer("migrate")["topics_made"] == [f"{settings.prefix}.{topic}" for topic in TOPICS]
    assert checked() == ("ok", "")


@pytest.fixture
def longer(settings: KafkaSettings) -> KafkaSettings:
    """Settings that want another retention than the topics have, which the broker knows."""
    wait_until(lambda: missing_topics(settings) == [] and _is_described(settings))
    return settings.model_copy(update={"retention_hours": 12})


def _is_described(settings: KafkaSettings) -> bool:
    try:
        return differences(settings) == []
    except StreamSettingsError:  # it has the topics and not their configs yet
        return False


def test_topics_that_differ_are_told_and_changed_only_when_asked(longer: KafkaSettings) -> None:
    hours = str(720 * 3_600_000)
    expected = {
        (f"{longer.prefix}.{topic}", config, found, str(12 * 3_600_000))
        for topic in ("events", "decisions")
        for config, found in (("retention.ms", hours), ("segment.ms", str(24 * 3_600_000)))
    }
    assert set(differences(longer)) == expected
    assert make_topics(longer) == []
    assert set(differences(longer)) == expected, "making topics changes none"
    assert set(change_topics(longer)) == expected
    wait_until(lambda: differences(longer) == [])
    assert change_topics(longer) == []


def test_what_a_topic_has_beside_ours_stays(longer: KafkaSettings) -> None:
    name = f"{longer.prefix}.events"

    async def with_admin(work: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, Any]]) -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=longer.servers)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    def config(key: str) -> str:
        return str(asyncio.run(with_admin(lambda admin: configs_of(admin, name)))[key])

    theirs = ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": "compact", "compression.type": "zstd"})
    asyncio.run(with_admin(lambda admin: admin.alter_configs([theirs])))
    wait_until(lambda: config("compression.type") == "zstd")
    assert (name, "cleanup.policy", "compact", "delete") in change_topics(longer)
    wait_until(lambda: config("cleanup.policy") == "delete")
    assert (config("compression.type"), config("retention.ms")) == ("zstd", str(12 * 3_600_000))


def test_copies_in_sync_are_asked_only_of_topics_that_have_the_copies(longer: KafkaSettings) -> None:
    """A topic of one copy that wanted two in sync would take no record."""
    wanted = longer.model_copy(update={"replication": 3})
    told = differences(wanted)
    assert "min.insync.replicas" not in {one.config for one in told}
    assert (f"{longer.prefix}.events", COPIES, "1", "3") in told
    assert COPIES not in {one.config for one in change_topics(wanted)}


def test_commands_show_what_differs(longer: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("servers", "prefix", "partitions", "replication", "retention_hours"):
        monkeypatch.setenv(f"SHOPKEEPER__KAFKA__{name.upper()}", str(getattr(longer, name)))

    def run(*arguments: str) -> str:
        found = CliRunner().invoke(app, [*arguments, "--data-dir", str(tmp_path)])
        assert found.exit_code == 0, found.output
        return found.stdout

    def checked() -> tuple[str, str]:
        rows = json.loads(run("doctor", "--json"))["checks"]
        return next((row["state"], row["then"]) for row in rows if row["check"] == "kafka")

    assert checked() == ("warn", DIFFERENCE_FIX)
    told = json.loads(run("migrate", "--json"))
    assert (len(told["topics_differ"]), told["topics_changed"], told["topics_made"]) == (4, [], [])
    assert "mend [kafka], or" in run("migrate")
    changed = json.loads(run("migrate", "--change-topics", "--json"))
    assert (changed["topics_differ"], changed["topics_changed"]) == ([], told["topics_differ"])
    wait_until(lambda: differences(longer) == [])
    assert checked() == ("ok", "")
    monkeypatch.setenv("SHOPKEEPER__KAFKA__REPLICATION", "2")
    changed = json.loads(run("migrate", "--change-topics", "--json"))
    assert ({one["config"] for one in changed["topics_differ"]}, changed["topics_changed"]) == ({COPIES}, [])


def test_topics_that_may_not_be_looked_at_hinder_nobody(
    longer: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refused(*_: object) -> dict[str, tuple[str, int]]:
        raise StreamSettingsError("configs of topic x cannot be read (code 29: no); allow it kafka.user")

    exchange._tell_differences(longer)
    assert "topic_differs" in capsys.readouterr().out
    monkeypatch.setattr(kafka_topics, "_described", refused)
    exchange._tell_differences(longer)
    for name in ("servers", "prefix", "partitions", "replication"):
        monkeypatch.setenv(f"SHOPKEEPER__KAFKA__{name.upper()}", str(getattr(longer, name)))
    found = CliRunner().invoke(app, ["migrate", "--data-dir", str(tmp_path), "--json"])
    assert found.exit_code == 0
    assert "topics are not compared" in found.stderr
    assert CliRunner().invoke(app, ["migrate", "--change-topics", "--data-dir", str(tmp_path)]).exit_code == 3
    rows = json.loads(CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path), "--json"]).stdout)["checks"]
    assert next(row["state"] for row in rows if row["check"] == "kafka") == "warn"


class EagerKafka(KafkaServer):
    """Makes what it is asked for, with one partition and for a week, as Kafka does unless told otherwise."""

    def properties(self) -> dict[str, object]:
        return super().properties() | {"auto.create.topics.enable": "true"}


def test_topics_are_ours_where_kafka_makes_what_it_is_asked_for(tmp_path: Path) -> None:
    with EagerKafka(tmp_path / "kafka") as server:
        settings = kafka_settings(server.address)
        for _ in range(2):
            assert missing_topics(settings) == list(TOPICS)
        assert differences(settings) == change_topics(settings) == []
        assert missing_topics(settings) == list(TOPICS), "nobody made them by asking"
        make_topics(settings)
        wait_until(lambda: missing_topics(settings) == [] and _is_described(settings))
