import pickle
import tomllib
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from server import settings as module
from server.settings import SECRETS, Settings, SettingsError, load_settings

DOCUMENT = Path(module.__file__).with_suffix(".toml")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(module.os.environ):
        if name.startswith("SHOPKEEPER__"):
            monkeypatch.delenv(name)


def keys(values: dict[str, object], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in values.items():
        found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}"}
    return found


def test_document_holds_every_default() -> None:
    assert load_settings(DOCUMENT, {}) == Settings()
    assert keys(tomllib.loads(DOCUMENT.read_text())) == keys(Settings().model_dump()) - set(SECRETS)


def test_document_explains_every_key() -> None:
    lines = DOCUMENT.read_text().splitlines()
    settings = [(before, line) for before, line in pairwise(lines) if " = " in line and not line.startswith("#")]
    assert len(settings) == len(keys(tomllib.loads(DOCUMENT.read_text())))
    assert [line for before, line in settings if not before.startswith("#")] == []


def test_flag_goes_before_environment_before_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shop.toml"
    file.write_text("[log]\ncommit_wait_ms = 1\ngroup_rows = 1\npoll_ms = 1\n")
    monkeypatch.setenv("SHOPKEEPER__LOG__GROUP_ROWS", "2")
    monkeypatch.setenv("SHOPKEEPER__LOG__POLL_MS", "2")
    log = load_settings(file, {"log.poll_ms": 3, "log.queue_rows": None}).log
    assert (log.commit_wait_ms, log.group_rows, log.poll_ms, log.queue_rows) == (1, 2, 3, 50_000)


def test_all_faults_come_at_once_with_key_and_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shop.toml"
    file.write_text('token_key = "x"\n[log]\ncommit_wait_ms = 6\ncommit_wait = 1\n[snapshots]\nkeep = 1\n')
    monkeypatch.setenv("SHOPKEEPER__SINC__BATCH_MS", "5")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {"listen.address": "0.0.0.0"})  # noqa: S104
    lines = str(caught.value).splitlines()
    for part in (
        "token_key: a secret does not belong in a file; set the environment variable SHOPKEEPER__TOKEN_KEY",
        "SHOPKEEPER__SINC__BATCH_MS: unknown variable; unset it",
        "log.commit_wait_ms: value should be less than or equal to 5, not 6",
        "log.commit_wait: unknown key; remove it, or take one of commit_wait_ms,",
        "snapshots: unknown key",
        "listen: address 0.0.0.0 can be reached from other machines without TLS; set listen.tls.cert",
    ):
        assert sum(part in line for line in lines) == 1, part


@pytest.mark.parametrize(
    ("overrides", "accepted"),
    [
        ({"listen.address": "::1"}, True),
        ({"listen.address": "localhost"}, True),
        ({"listen.address": "shop.example"}, False),
        ({"listen.address": "10.0.0.1", "listen.insecure": True}, True),
        ({"listen.address": "10.0.0.1", "listen.tls.cert": "c.pem", "listen.tls.key": "k.pem"}, True),
        ({"listen.tls.cert": "c.pem"}, False),
    ],
)
def test_other_machines_need_tls(overrides: dict[str, object], accepted: bool) -> None:
    if accepted:
        load_settings(None, overrides)
    else:
        with pytest.raises(SettingsError, match=r"listen"):
            load_settings(None, overrides)


def test_secrets_come_from_the_environment_and_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in SECRETS:
        monkeypatch.setenv(f"SHOPKEEPER__{key.replace('.', '__').upper()}", "hush")
    settings = load_settings(None, {})
    assert settings.token_key.get_secret_value() == settings.clickhouse.password.get_secret_value() == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("key", SECRETS)
def test_secrets_are_refused_in_a_file_or_flag(key: str, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(f'{key} = "x"\n')
    with pytest.raises(SettingsError, match=f"{key}: a secret does not belong in a file"):
        load_settings(file, {})
    with pytest.raises(SettingsError, match=f"{key}: a secret does not belong in a flag"):
        load_settings(None, {key: "x"})


def test_a_time_zone_is_one_of_the_world() -> None:
    assert load_settings(None, {"time_zone": "America/New_York"}).time_zone == "America/New_York"
    for name in ("Mars/Olympus", "../etc", ""):
        with pytest.raises(SettingsError, match=r"time_zone: .*Europe/Berlin"):
            load_settings(None, {"time_zone": name})


@pytest.mark.parametrize("key", ["kafka.servers", "clickhouse.server"])
def test_ports_of_servers_are_ports(key: str) -> None:
    load_settings(None, {key: "shop.example:65535"})
    for port in (0, 99_999):
        with pytest.raises(SettingsError, match=rf"{key}: shop.example:{port} .*from 1 to 65535"):
            load_settings(None, {key: f"shop.example:{port}"})


def test_event_ids_are_kept_as_long_as_the_contract_says() -> None:
    assert [load_settings(None, {"kafka.keep_hours": hours}).kafka.keep_hours for hours in (0, 168)] == [0, 168]
    for hours in (1, 167):
        with pytest.raises(SettingsError, match=f"kafka.keep_hours: {hours} h is less than the 168 h"):
            load_settings(None, {"kafka.keep_hours": hours})


@pytest.mark.parametrize("text", ["not toml", None])
def test_unreadable_file_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "shop.toml"
    if text:
        file.write_text(text)
    with pytest.raises(SettingsError, match=str(file)):
        load_settings(file, {})


@pytest.mark.parametrize(
    ("kafka", "hours"),
    [({}, 24), ({"servers": "k:9092", "retention_hours": 48}, 72), ({"servers": "k:9092", "retention_hours": 0}, None)],
)
def test_what_is_erased_ends_with_what_keeps_it_longest(kafka: dict[str, object], hours: int | None) -> None:
    after = Settings(kafka=kafka).forgotten_after
    assert (after and after / timedelta(hours=1)) == hours


def test_settings_travel_to_other_processes() -> None:
    settings = load_settings(None, {"clock.start": "2017-03-01"})
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301
    assert settings.clock.start is not None
    assert settings.clock.start.isoformat() == "2017-03-01T00:00:00+00:00"
