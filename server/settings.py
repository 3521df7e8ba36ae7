"""Settings of one deployment: flag before environment before file before default, all checked at once.

`settings.toml` beside this file documents every key.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from server.setting_types import (
    KeptHours,
    OptionalPath,
    OptionalTime,
    Port,
    Server,
    Servers,
    TimeZone,
    is_loopback,
)

ENV_PREFIX = "SHOPKEEPER__"
"""`SHOPKEEPER__LOG__COMMIT_WAIT_MS` sets `log.commit_wait_ms`."""

SECRETS: Final = ("token_key", "clickhouse.password", "kafka.password")
"""Keys that only the environment may hold."""


class SettingsError(Exception):
    """Settings that cannot be used; the text has one line a fault: key, fault, fix."""


class Section(BaseModel):
    """Group of settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsSettings(Section):
    """Certificate that clients see."""

    cert: OptionalPath = None
    key: OptionalPath = None

    @model_validator(mode="after")
    def _need_both(self) -> Self:
        if (self.cert is None) != (self.key is None):
            missing, given = ("key", "cert") if self.key is None else ("cert", "key")
            raise ValueError(f"{missing} is empty while {given} is set; set both or neither")
        return self


class ListenSettings(Section):
    """Where clients connect."""

    address: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 50_051
    workers: int = Field(default=1, ge=1, le=256)
    insecure: bool = False
    tls: TlsSettings = TlsSettings()

    @model_validator(mode="after")
    def _need_tls_outside(self) -> Self:
        if not (is_loopback(self.address) or self.tls.cert or self.insecure):
            raise ValueError(
                f"address {self.address} can be reached from other machines without TLS; "
                "set listen.tls.cert and listen.tls.key, or listen.insecure=true behind a proxy that has TLS"
            )
        return self


class ClockSettings(Section):
    """Time for which answers are made."""

    start: OptionalTime = None
    rate: float = Field(default=1.0, ge=0.0, le=1e6, allow_inf_nan=False)


class LogSettings(Section):
    """How records get to disk."""

    commit_wait_ms: float = Field(default=2.0, ge=0.0, le=5.0)
    group_rows: int = Field(default=20_000, ge=1, le=1_000_000)
    queue_rows: int = Field(default=50_000, ge=1, le=10_000_000)
    poll_ms: int = Field(default=20, ge=1, le=10_000)


class SinkSettings(Section):
    """How the log gets to the tables."""

    batch_rows: int = Field(default=50_000, ge=1, le=1_000_000)
    batch_ms: int = Field(default=1_000, ge=1, le=60_000)
    retention_days: int = Field(default=0, ge=0, le=36_500)


class ClickHouseSettings(Section):
    """Server of the tables; without one they are in chDB."""

    server: Server = ""
    database: str = Field(default="shopkeeper", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    cluster: str = Field(default="", pattern=r"^$|^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    user: str = "default"
    password: SecretStr = SecretStr("")
    tls: bool = False
    ca: OptionalPath = None
    connect_s: float = Field(default=5.0, gt=0.0, le=600.0)
    answer_s: float = Field(default=120.0, gt=0.0, le=3_600.0)


class KafkaSettings(Section):
    """Brokers that carry the log between machines; without them the log stays on this one."""

    servers: Servers = ""
    prefix: str = Field(default="shopkeeper", pattern=r"^[A-Za-z0-9._-]{1,100}$")
    partitions: int = Field(default=12, ge=1, le=1_024)
    replication: int = Field(default=3, ge=1, le=9)
    retention_hours: int = Field(default=720, ge=0, le=876_000)
    keep_hours: KeptHours = 0
    user: str = ""
    password: SecretStr = SecretStr("")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    tls: bool = False
    ca: OptionalPath = None


class SnapshotSettings(Section):
    """How a replica keeps its state."""

    interval_s: float = Field(default=300.0, gt=0.0, allow_inf_nan=False)
    keep: int = Field(default=2, ge=1, le=100)


class LimitSettings(Section):
    """What one caller, and all callers together, may ask for."""

    message_bytes: int = Field(default=1_048_576, ge=1_024)
    import_message_bytes: int = Field(default=8_388_608, ge=1_024)
    concurrent: int = Field(default=512, ge=1)
    default_deadline_ms: int = Field(default=1_000, ge=1)


class PrivacySettings(Section):
    """What holds where a visitor has not answered."""

    consent_default: bool = True


class DecisionSettings(Section):
    """Which decisions are logged."""

    share: float = Field(default=1.0, ge=0.0, le=1.0)


class MetricsSettings(Section):
    """Where Prometheus reads."""

    address: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 0


class Settings(BaseSettings):
    """All settings of one server; `load_settings` reads them."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=False,
    )

    data_dir: Path = Path("data")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    time_zone: TimeZone = "UTC"
    token_key: SecretStr = SecretStr("")
    listen: ListenSettings = ListenSettings()
    clock: ClockSettings = ClockSettings()
    log: LogSettings = LogSettings()
    sink: SinkSettings = SinkSettings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    kafka: KafkaSettings = KafkaSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    limits: LimitSettings = LimitSettings()
    privacy: PrivacySettings = PrivacySettings()
    decisions: DecisionSettings = DecisionSettings()
    metrics: MetricsSettings = MetricsSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the arguments alone: `Settings()` is the defaults, whatever the environment holds."""
        return (init_settings,)

    @property
    def tables_follow_kafka(self) -> bool:
        """Whether all machines fill one database from Kafka; else each fills its own from its own log."""
        return bool(self.kafka.servers and self.clickhouse.server)

    @property
    def forgotten_after(self) -> timedelta | None:
        """Time by which no store has what was erased; None where Kafka keeps it for ever.

        A day for the tables, exports and snapshots. Kafka takes its retention, and a day for the segment to end.
        """
        if self.kafka.servers and not self.kafka.retention_hours:
            return None
        return timedelta(hours=24 + (self.kafka.retention_hours if self.kafka.servers else 0))

    @property
    def log_path(self) -> Path:
        """File of the log."""
        return self.data_dir / "log.sqlite"

    @property
    def snapshot_dir(self) -> Path:
        """Folder of the snapshots."""
        return self.data_dir / "snapshots"

    @property
    def bundle_dir(self) -> Path:
        """Folder of the bundles."""
        return self.data_dir / "bundles"

    @property
    def store_dir(self) -> Path:
        """Folder of the tables."""
        return self.data_dir / "store"

    @property
    def export_dir(self) -> Path:
        """Folder of the exports for trainers."""
        return self.data_dir / "exports"

    @property
    def reject_dir(self) -> Path:
        """Folder of damaged files that were set aside."""
        return self.data_dir / "rejected"


def load_settings(path: Path | None, overrides: Mapping[str, object]) -> Settings:
    """Return the settings: overrides before environment before file before defaults.

    Parameters
    ----------
    path : TOML file; None reads no file
    overrides : values by dotted key, e.g. `{"listen.port": 0}`; None means not given

    Raises
    ------
    SettingsError : one line for each fault of any source
    """
    faults: list[str] = []
    file = _read_file(path, faults)
    given = _nest(overrides)
    for place, values in (("file", file), ("flag", given)):
        faults += _secrets_in(place, values)
    faults += _unknown_variables()
    try:
        environment = EnvSettingsSource(Settings)()
    except SourceError as error:
        faults.append(f"{ENV_PREFIX}…: {error}; write a section as JSON or set its keys one by one")
        environment = {}
    try:
        settings = Settings(**_merge(_merge(file, environment), given))
    except ValidationError as error:
        faults += map(_fault, error.errors())
    if faults:
        raise SettingsError("settings cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))
    return settings


def _read_file(path: Path | None, faults: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        faults.append(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file")
    except ValueError as error:
        faults.append(f"{path}: is not TOML ({error}); mend that line")
    return {}


def _secrets_in(place: str, values: dict[str, Any]) -> Iterator[str]:
    """Take out what may come from the environment only, and say so."""
    for key in SECRETS:
        *sections, name = key.split(".")
        branch: Any = values
        for section in sections:
            branch = branch.get(section)
            if not isinstance(branch, dict):
                break
        else:
            if branch.pop(name, None) is not None:
                variable = ENV_PREFIX + key.replace(".", "__").upper()
                yield f"{key}: a secret does not belong in a {place}; set the environment variable {variable}"


def _nest(overrides: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        if value is None:
            continue
        branch: object = value
        for name in reversed(key.split(".")):
            branch = {name: branch}
        nested = _merge(nested, branch)
    return nested


def _merge(low: Mapping[str, Any], high: Any) -> dict[str, Any]:
    merged = dict(low)
    for key, value in high.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _unknown_variables() -> Iterator[str]:
    for name in sorted(os.environ):
        key = name.upper().removeprefix(ENV_PREFIX).partition("__")[0].lower()
        if name.upper().startswith(ENV_PREFIX) and key not in Settings.model_fields:
            yield f"{name}: unknown variable; unset it, or take one of {_names(Settings)}"


def _fault(error: ErrorDetails) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it, or take one of {_names(_model_at(error['loc'][:-1]))}"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    fault = error["msg"].replace("Input", "value")
    return f"{key}: {fault}, not {error['input']!r}; see the key in server/settings.toml"


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    model: Any = Settings
    for name in loc:
        model = model.model_fields[str(name)].annotation
    return cast("type[BaseModel]", model)


def _names(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
