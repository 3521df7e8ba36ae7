"""The compose file, without an engine to run it: settings, commands, ports and files in it exist and agree."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from server.cli.main import app
from server.settings import ENV_PREFIX, Settings, SettingsError, load_settings
from tests.fetch_servers import CLICKHOUSE_VERSION, KAFKA_VERSION

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
SERVERS = {name: service for name, service in OURS.items() if service["command"] == ["serve"]}
SERVICE_KEYS = {
    "build", "command", "depends_on", "environment", "healthcheck", "image", "ports", "profiles", "restart",
    "stop_grace_period", "ulimits", "volumes",
}  # fmt: skip


def settings_of(service: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:\?[^}]*\}", "secret", value))
    return load_settings(None, {})


def places(service: dict[str, Any]) -> list[tuple[str, str]]:
    return [tuple(volume.split(":")[:2]) for volume in service.get("volumes", ())]


def test_file_has_what_compose_knows() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}
    for service in SERVICES.values():
        assert set(service) <= SERVICE_KEYS
        assert all(isinstance(value, str) for value in service.get("environment", {}).values())
        assert set(service.get("healthcheck", {})) <= {"test", "interval", "timeout", "start_period"}


def test_images_are_pinned() -> None:
    for service in SERVICES.values():
        _, _, tag = service["image"].rpartition(":")
        assert re.match(r"v?\d|local", tag)


def test_servers_are_as_new_as_those_of_the_tests() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    major_minor = ".".join(CLICKHOUSE_VERSION.split(".")[:2])
    assert SERVICES["clickhouse"]["image"] == f"clickhouse/clickhouse-server:{major_minor}"


def test_trainer_has_the_trainers_and_the_folders_of_the_server_it_asks() -> None:
    trainer = SERVICES["retrain"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert trainer["build"]["args"]["EXTRAS"] == "trainers"
    assert "trainers" in extras
    assert re.search(r"^ARG EXTRAS", DOCKERFILE.rpartition("\nFROM ")[2], re.MULTILINE)
    assert "${EXTRAS:+[$EXTRAS]}" in DOCKERFILE
    assert trainer["image"] != SERVICES["shop-a"]["image"]
    host, _, port = trainer["command"][-1].partition(":")
    assert (trainer["command"][-2], port) == ("--address", "50051")
    assert places(trainer) == places(SERVERS[host])
    shared = {name for name, target in places(trainer) if target == "/data/bundles"}
    assert all(shared < {name for name, _ in places(server)} for server in SERVERS.values()), "all serve what it makes"


def test_alerts_reach_an_alertmanager_that_has_a_place_for_each_severity() -> None:
    ((host, port),) = (
        target.split(":")
        for manager in PROMETHEUS["alerting"]["alertmanagers"]
        for group in manager["static_configs"]
        for target in group["targets"]
    )
    assert f"127.0.0.1:{port}:{port}" in SERVICES[host]["ports"]
    ((folder, mounted),) = (place for place in places(SERVICES[host]) if place[0].startswith("."))
    assert mounted == "/etc/alertmanager"
    config = yaml.safe_load((DEPLOY / folder / "alertmanager.yml").read_text(encoding="utf-8"))
    receivers = {receiver["name"] for receiver in config["receivers"]}
    routes = [config["route"], *config["route"]["routes"]]
    assert {route["receiver"] for route in routes} == receivers
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    severities = {rule["labels"]["severity"] for group in rules["groups"] for rule in group["rules"]}
    matched = {text.split('"')[1] for route in config["route"]["routes"] for text in route["matchers"]}
    assert matched < severities


def test_services_wait_for_what_is_there() -> None:
    for service in SERVICES.values():
        awaited = service.get("depends_on", {})
        assert set(awaited) <= set(SERVICES)
        for name, how in awaited.items() if isinstance(awaited, dict) else ():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[name]
            else:
                assert how["condition"] == "service_completed_successfully"
                assert "restart" not in SERVICES[name]


def test_volumes_are_declared_and_mounted_files_exist() -> None:
    for service in SERVICES.values():
        for source, target in places(service):
            assert target.startswith("/")
            if source.startswith("."):
                assert (DEPLOY / source).exists()
            else:
                assert source in COMPOSE["volumes"]
    assert {name for service in SERVERS.values() for name, target in places(service) if target == "/data"} == {
        "shop-a",
        "shop-b",
    }


@pytest.mark.parametrize("name", OURS)
def test_settings_exist_and_fit_the_other_services(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(variable.startswith(ENV_PREFIX) for variable in OURS[name]["environment"])
    settings = settings_of(OURS[name], monkeypatch)
    assert settings.kafka.servers == SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split("//")[1]
    assert settings.kafka.replication == 1
    assert settings.clickhouse.server.partition(":")[0] in SERVICES
    assert settings.clickhouse.user == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    assert settings.tables_follow_kafka


def test_unknown_setting_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"environment": {f"{ENV_PREFIX}KAFKA__SERVER": "kafka:9092"}}
    with pytest.raises(SettingsError, match=r"kafka\.server"):
        settings_of(wrong, monkeypatch)


@pytest.mark.parametrize("name", OURS)
def test_commands_are_those_of_the_command_line(name: str) -> None:
    assert 'ENTRYPOINT ["shopkeeper"]' in DOCKERFILE
    commands = [OURS[name]["command"], json.loads(re.search(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)[1])]  # type: ignore[index]
    for command in commands:
        assert command[0] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
        assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0


def test_prometheus_reads_every_process_of_every_server(monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    targets = {target for group in job["static_configs"] for target in group["targets"]}
    wanted = set()
    for name, service in SERVERS.items():
        settings = settings_of(service, monkeypatch)
        assert settings.metrics.address == settings.listen.address == "0.0.0.0"  # noqa: S104 - inside a container
        wanted |= {f"{name}:{settings.metrics.port + number}" for number in range(settings.listen.workers + 2)}
    assert targets == wanted
    assert job["job_name"] == "shopkeeper"


def test_published_ports_are_of_this_machine_alone_and_those_that_are_listened_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)
    for service in SERVERS.values():
        port = settings_of(service, monkeypatch).listen.port
        assert [published.rsplit(":", 1)[1] for published in service["ports"]] == [str(port)]
        assert f"127.0.0.1:{port}" in service["healthcheck"]["test"][-1]


def test_health_check_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.cli.remote.is_serving", lambda address, _: address == "127.0.0.1:50051")
    for service in SERVERS.values():
        exec(service["healthcheck"]["test"][-1], {})  # noqa: S102 - the text under test


def test_dockerfile_copies_what_is_there() -> None:
    settings = Settings(data_dir=Path("/data"))
    assert f"SHOPKEEPER__DATA_DIR={settings.data_dir}" in DOCKERFILE
    ours = {str(settings.data_dir), str(settings.bundle_dir)}
    assert all({target for _, target in places(service)} == ours for service in SERVERS.values())
    assert f"install --directory --owner shopkeeper {' '.join(sorted(ours))}" in DOCKERFILE
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    names = [line.removeprefix("!") for line in kept if line.startswith("!")]
    assert all((ROOT / name).exists() for name in names)
    packages = re.search(r"python-packages = (\[.*\])", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert packages is not None
    assert set(json.loads(packages[1])) <= set(names)
    for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in shlex.split(line))
    version = re.search(r"FROM rust:([\d.]+)", DOCKERFILE)
    wanted = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert version is not None
    assert wanted is not None
    assert version[1] == wanted[1]
