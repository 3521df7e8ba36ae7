"""What all tests share: real servers, each started by the first test that asks for it, and the log of none but one."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.servers import ClickHouseServer, KafkaServer, Server

settings.register_profile(
    "any machine",
    deadline=None,  # a busy one takes longer, and is no less right
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,  # the same examples on each, so that a failure is of the change that was made
)
settings.load_profile("any machine")


def _running(kind: type[Server], variable: str, factory: pytest.TempPathFactory) -> Iterator[str]:
    if address := os.environ.get(variable):
        yield address
        return
    with kind(factory.mktemp(kind.__name__)) as server:
        yield server.address


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return `host:port` of a Kafka broker; names of topics are the test's own."""
    yield from _running(KafkaServer, "SHOPKEEPER_TEST_KAFKA", tmp_path_factory)


@pytest.fixture(scope="session")
def clickhouse_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return `host:port` of a ClickHouse; names of databases are the test's own."""
    yield from _running(ClickHouseServer, "SHOPKEEPER_TEST_CLICKHOUSE", tmp_path_factory)


@pytest.fixture(autouse=True)
def log_lines_of_one_test() -> Iterator[None]:
    """Take back where a command sent its log lines: the stream is closed when its test ends."""
    yield
    structlog.reset_defaults()
