"""Fetch what the tests run: Kafka from Maven Central, ClickHouse as the library of chDB's npm package, promtool.

`make servers` runs it. What is there is kept; what is missing appears whole, by a rename.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.4.0"
CLICKHOUSE_PACKAGE: Final = "@chdb/lib-linux-x64-gnu"
CLICKHOUSE_VERSION: Final = "26.7.3-stable.1"
CACHE: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shopkeeper-tests"
KAFKA_FOLDER: Final = CACHE / f"kafka-{KAFKA_VERSION}"
CLICKHOUSE_FOLDER: Final = CACHE / f"clickhouse-{CLICKHOUSE_VERSION}"
CLICKHOUSE_LIBRARY: Final = CLICKHOUSE_FOLDER / "node_modules" / CLICKHOUSE_PACKAGE / "libchdb.so"
PROMETHEUS_FOLDER: Final = CACHE / "prometheus"

_POM: Final = Path(__file__).with_name("kafka-pom.xml")
_DEBIAN: Final = {"java": "default-jre-headless", "mvn": "maven", "npm": "npm", "promtool": "prometheus"}


def main() -> None:
    """Fetch all, unless the environment names servers that run already."""
    if not os.environ.get("SHOPKEEPER_TEST_KAFKA"):
        _fetch(KAFKA_FOLDER, ("java", "mvn"), _kafka_command)
    if not os.environ.get("SHOPKEEPER_TEST_CLICKHOUSE"):
        _fetch(CLICKHOUSE_FOLDER, ("npm",), _clickhouse_command)
    if promtool() is None:
        _fetch(PROMETHEUS_FOLDER, ("apt-get",) if shutil.which("apt-get") else ("promtool",), _prometheus_command)


def promtool() -> str | None:
    """Return the checker of Prometheus rules; None where there is none."""
    fetched = PROMETHEUS_FOLDER / "usr" / "bin" / "promtool"
    return shutil.which("promtool") or (str(fetched) if fetched.exists() else None)


def _kafka_command(folder: Path) -> list[str]:
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    return ["mvn", "-B", "-ntp", "-q", "-f", str(_POM), f"-Dkafka.version={KAFKA_VERSION}", *goal]


def _clickhouse_command(folder: Path) -> list[str]:
    flags = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    return ["npm", "install", *flags, f"{CLICKHOUSE_PACKAGE}@{CLICKHOUSE_VERSION}"]


def _prometheus_command(folder: Path) -> list[str]:
    """Take Debian's package apart, so that no service is installed and nobody has to be root."""
    get = "apt-get download -q prometheus"
    return ["sh", "-ec", f'cd "$0"; {get} || (apt-get update -q && {get}); dpkg-deb -x prometheus_*.deb .', str(folder)]


def _fetch(folder: Path, tools: Sequence[str], command: Callable[[Path], list[str]]) -> None:
    _need(tools)
    if folder.is_dir():
        return
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir(parents=True)
    try:
        print(f"fetching {folder.name} into {CACHE}", flush=True)
        subprocess.run(command(part), check=True)
        if not folder.is_dir():  # another checkout may have been faster
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _need(tools: Sequence[str]) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    packages = [_DEBIAN[tool] for tool in missing]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        apt = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
        if subprocess.run(apt, check=False).returncode:
            subprocess.run(["apt-get", "update", "-q"], check=True)
            subprocess.run(apt, check=True)
        return
    sys.exit(
        f"{', '.join(missing)} missing: install with `sudo apt-get install {' '.join(packages)}`, then run make again"
    )


if __name__ == "__main__":
    main()
