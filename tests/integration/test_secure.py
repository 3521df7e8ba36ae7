"""TLS and logins: of the server's clients, of Kafka, of ClickHouse, and of a machine that uses all three."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from server.adapters.clickhouse_store import ClickHouseStore
from server.adapters.kafka_feed import KafkaFeed
from server.adapters.kafka_topics import missing_topics
from server.app import App
from server.cli.doctor import examine
from server.cli.output import Exit
from server.ports import StoreSettingsError, StreamSettingsError
from server.settings import ClickHouseSettings, KafkaSettings, ListenSettings, Settings, TlsSettings
from shopkeeper.aio import AsyncClient
from shopkeeper.calls import CallError
from shopkeeper.client import Client
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.event_service_pb2 import RecordEventsRequest
from tests.cluster_shop import logged, start, stored_count
from tests.kafka_shop import Machine, drained, ids, kafka_settings, topics
from tests.secure_servers import PASSWORD, USER, Authority, SecureClickHouse, SecureKafka, TlsFront
from tests.table_shop import Shop, event, wait_until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def kafka(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    with SecureKafka(tmp_path_factory.mktemp("kafka"), authority) as server:
        login = {"user": USER, "password": SecretStr(PASSWORD), "tls": True, "ca": authority.ca}
        yield kafka_settings(server.address, **login)


@pytest.fixture
def clickhouse(authority: Authority, tmp_path: Path) -> Iterator[ClickHouseSettings]:
    with SecureClickHouse(tmp_path / "clickhouse") as server, TlsFront(server.address, authority) as front:
        login = {"user": USER, "password": SecretStr(PASSWORD), "tls": True, "ca": authority.ca}
        yield ClickHouseSettings(server=front.address, **login)


def view(event_id: str, visitor_id: str) -> Event:
    context = Context(visitor_id=visitor_id)
    return Event(
        event_id=event_id, event_type=EventType.EVENT_TYPE_VIEW, context=context, items=[EventItem(item_id="brie")]
    )


def listening(cert: Path, key: Path, tmp_path: Path) -> Settings:
    tls = TlsSettings(cert=cert, key=key)
    return Settings(data_dir=tmp_path / "data", listen=ListenSettings(port=0, tls=tls))


async def test_clients_that_know_the_authority_are_served(authority: Authority, tmp_path: Path) -> None:
    app = App(listening(authority.cert, authority.key, tmp_path))
    address = await app.start()
    try:
        trusted = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        async with AsyncClient(address, timeout_s=10, credentials=trusted) as client:
            assert (await client.recommend("home_for_you", "v")).slates
        for strange in ({}, {"credentials": grpc.ssl_channel_credentials()}):
            async with AsyncClient(address, timeout_s=2, **strange) as client:
                with pytest.raises(CallError):
                    await client.recommend("home_for_you", "v")
    finally:
        await app.stop()


def test_commands_and_doctor_speak_tls(
    authority: Authority, stranger: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start(Settings(), tmp_path / "a", **shown(authority)) as machine:
        address = f"127.0.0.1:{machine.port}"
        credentials = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        with Client(address, timeout_s=30, credentials=credentials) as client:
            wait_until(lambda: answers(lambda: client.recommend("home_for_you", "v")))
        asked = placements(address, authority)
        assert asked.returncode == 0, asked.stderr
        assert "home_for_you" in asked.stdout
        assert placements(address, stranger).returncode == Exit.DEPENDENCY
        monkeypatch.setenv("SHOPKEEPER__LISTEN__PORT", str(machine.port))
        for who, state in ((authority, "ok"), (stranger, "warn")):
            for name, value in shown(who).items():
                monkeypatch.setenv(f"SHOPKEEPER__{name}", value)
            assert [row.state for row in examine(None, tmp_path / "a" / "data") if row.check == "port"] == [state]
        assert machine.stop() == 0


def shown(authority: Authority) -> dict[str, str]:
    """Return the environment of a server that shows the certificate of `authority`."""
    return {"LISTEN__TLS__CERT": str(authority.cert), "LISTEN__TLS__KEY": str(authority.key)}


def placements(address: str, trusted: Authority) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "server.cli", "placements", "--address", f"tls://{address}", "--json"]
    environment = {**os.environ, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(trusted.ca)}  # gRPC reads it once a process
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=60, check=False)


def answers(call: Callable[[], object]) -> bool:
    try:
        call()
    except CallError:
        return False
    return True


@pytest.mark.parametrize("broken", ["missing", "of another", "text"])
async def test_certificate_that_cannot_be_shown_is_named(
    broken: str, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    (tmp_path / "text").write_text("no key")
    key = {"missing": tmp_path / "none.pem", "of another": stranger.key, "text": tmp_path / "text"}[broken]
    app = App(listening(authority.cert, key, tmp_path))
    try:
        with pytest.raises(OSError, match=f"listen.tls.key {re.escape(str(key))} cannot be used"):
            await app.start()
    finally:
        await app.stop()


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_records_pass_through_kafka_with_tls_and_a_login(kafka: KafkaSettings, mechanism: str, tmp_path: Path) -> None:
    settings = topics(kafka.model_copy(update={"prefix": f"{kafka.prefix}-{mechanism}", "mechanism": mechanism}))
    with Machine(tmp_path, settings) as machine:
        machine.add(*(event(f"e{number}", "a", visitor_id=f"v{number}") for number in range(100)))
        assert machine.ship() == 100
    feed = KafkaFeed(settings, "test")
    try:
        feed.begin(dict)
        assert sorted(ids(drained(feed, 100))) == sorted(f"e{number}" for number in range(100))
    finally:
        feed.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"password": SecretStr("wrong")}, "SaslAuthenticationFailed.*SHOPKEEPER__KAFKA__PASSWORD"),
        ({"user": "nobody"}, r"SaslAuthenticationFailed.*set kafka\.user"),
        ({"user": ""}, r"who does not log in.*set kafka\.user"),
        ({"ca": None}, r"CERTIFICATE_VERIFY_FAILED.*set kafka\.ca"),
        ({"ca": Path("none.pem")}, r"kafka\.ca none\.pem"),
        ({"tls": False, "user": ""}, r"speaks TLS; set kafka\.tls=true"),
    ],
)
def test_kafka_that_refuses_us_is_told_in_bounded_time(kafka: KafkaSettings, change: dict[str, Any], why: str) -> None:
    with pytest.raises(StreamSettingsError, match=why):
        missing_topics(kafka.model_copy(update=change))


@pytest.mark.parametrize("change", [{"tls": True}, {"user": USER}])
def test_kafka_without_tls_and_logins_names_the_setting_that_asks_for_them(
    kafka_address: str, change: dict[str, Any]
) -> None:
    (key,) = change
    with pytest.raises(StreamSettingsError, match=rf"kafka\.{key}"):
        missing_topics(kafka_settings(kafka_address, **change))


def test_tables_fill_through_tls_and_a_login(clickhouse: ClickHouseSettings) -> None:
    store = ClickHouseStore(clickhouse)
    try:
        shop = Shop(store)
        shop.add(*(event(f"e{number}", "a") for number in range(100)))
        assert shop.sink.step() == 100
        assert shop.rows("SELECT count(), currentUser() FROM events") == [(100, USER)]
    finally:
        store.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ca": None}, r"(?i)certificate.*set clickhouse\.ca"),
        ({"ca": Path("none.pem")}, r"clickhouse\.ca none\.pem"),
        ({"password": SecretStr("wrong")}, "Authentication failed.*SHOPKEEPER__CLICKHOUSE__PASSWORD"),
        ({"tls": False}, r"speaks TLS; set clickhouse\.tls=true"),
    ],
)
def test_clickhouse_that_refuses_us_is_told(clickhouse: ClickHouseSettings, change: dict[str, Any], why: str) -> None:
    with pytest.raises(StoreSettingsError, match=why) as told:
        ClickHouseStore(clickhouse.model_copy(update=change))
    assert "wrong" not in str(told.value)


def test_machines_share_events_with_tls_everywhere(
    kafka: KafkaSettings, clickhouse: ClickHouseSettings, authority: Authority, tmp_path: Path
) -> None:
    settings = Settings(kafka=topics(kafka), clickhouse=clickhouse)
    login = {"USER": USER, "PASSWORD": PASSWORD, "TLS": "true", "CA": str(authority.ca)}
    options = {f"{section}__{name}": value for section in ("KAFKA", "CLICKHOUSE") for name, value in login.items()}
    events = [view(f"e{number}", f"v{number}") for number in range(300)]
    with start(settings, tmp_path / "a", **options) as here, start(settings, tmp_path / "b", **options) as there:
        here.call("EventService/RecordEvents", RecordEventsRequest(events=events).SerializeToString())
        wait_until(lambda: stored_count(settings) == len(events))
        wait_until(lambda: len(logged(tmp_path / "b")) == len(events))
        assert (here.stop(), there.stop()) == (0, 0)
    for machine in ("a", "b"):
        assert PASSWORD not in (tmp_path / machine / "server.log").read_text(encoding="utf-8")
