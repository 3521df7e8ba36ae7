"""What does not fit on a real Kafka is told soon, with the setting or the command that mends it."""

import time
from contextlib import closing
from pathlib import Path

import pytest

from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import make_topics
from server.ports import StreamOutdatedError, StreamSettingsError
from tests.kafka_shop import Machine, drained, ids, kafka_settings, topics
from tests.table_shop import event


def test_copies_beyond_the_brokers_name_their_setting(kafka_address: str) -> None:
    with pytest.raises(StreamSettingsError, match=r"1 broker.*set kafka\.replication"):
        make_topics(kafka_settings(kafka_address, replication=2))


@pytest.mark.parametrize("group", ["", "sink"])
def test_readers_and_shippers_say_soon_that_topics_are_missing(kafka_address: str, group: str, tmp_path: Path) -> None:
    settings = kafka_settings(kafka_address)
    begin = time.monotonic()
    with closing(KafkaFeed(settings, group)) as feed, Machine(tmp_path, settings) as machine:
        feed.begin(dict)
        machine.add(event("e1", "a"))
        for work in (lambda: feed.read(1), machine.ship):
            with pytest.raises(StreamOutdatedError, match=r"lacks the topics .*\.events.*; run `shopkeeper migrate`"):
                work()
        assert time.monotonic() - begin < 15
        make_topics(settings)
        machine.ship()
        assert ids(drained(feed, 1)) == ["e1"]


def test_readers_and_shippers_name_the_setting_of_partitions(kafka_address: str, tmp_path: Path) -> None:
    settings = topics(kafka_settings(kafka_address))
    another = settings.model_copy(update={"partitions": 4})
    with closing(KafkaFeed(another)) as feed, Machine(tmp_path, another) as machine:
        feed.begin(dict)
        machine.add(event("e1", "a"))
        for work in (lambda: feed.read(1), machine.ship):
            with pytest.raises(StreamSettingsError, match=r"events has 3 partitions; set kafka\.partitions=3"):
                work()
