"""`shopkeeper doctor --data`: what comes in, what is wrong with it, which recommender it is enough for."""

from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from server.bundles import BundleStore
from server.clock import clock_of
from server.quality import Finding, Quality, examine
from server.readiness import Readiness, facts_of, next_of, readiness
from server.settings import Settings
from server.tables import reached_store

STYLES = {
    "ok": "green",
    "usable": "green",
    "trainable": "cyan",
    "warn": "yellow",
    "waiting": "yellow",
    "fail": "bold red",
}
"""Colour of each state."""

_ANSWER_S = 120.0


def data_report(settings: Settings) -> tuple[dict[str, Any], RenderableType]:
    """Return the report, and how it is shown.

    Raises
    ------
    StoreError : the tables cannot be read
    """
    with reached_store(settings, _ANSWER_S) as store:
        quality = examine(store, clock_of(settings.clock).now_ms())
        facts = facts_of(store, quality.end_ms)
    is_there = settings.bundle_dir.is_dir()
    manifests = BundleStore(settings.bundle_dir, settings.time_zone).manifests() if is_there else []
    found = readiness(facts, manifests[0].files if manifests else ())
    upcoming = next_of(found)
    report = {
        "newest_ms": quality.end_ms,
        "types": quality.types,
        "findings": [finding._asdict() for finding in quality.findings],
        "facts": facts,
        "recommenders": [one._asdict() for one in found],
        "next": upcoming.name if upcoming else None,
    }
    return report, Group(_type_table(quality), finding_table("data", quality.findings), *_readiness_shown(found))


def finding_table(title: str, findings: list[Finding]) -> Table:
    """Return the table of checks."""
    table = Table("check", "state", "finding", "next", title=title, title_justify="left")
    for one in findings:
        table.add_row(one.check, _styled(one.state), one.finding.replace("[", r"\["), one.then.replace("[", r"\["))
    return table


def _type_table(quality: Quality) -> Table:
    table = Table("type", title="events", title_justify="left")
    for name in ("events", "lines", "visitors", "first", "last"):
        table.add_column(name, justify="right")
    for row in quality.types:
        counts = (f"{row[name]:,}" for name in ("events", "lines", "visitors"))
        days = (f"{datetime.fromtimestamp(row[name] / 1000, UTC):%Y-%m-%d}" for name in ("first_ms", "last_ms"))
        table.add_row(row["event_type"] or "unknown", *counts, *days)
    return table


def _readiness_shown(found: list[Readiness]) -> list[RenderableType]:
    table = Table("recommender", "state", "needs", title="readiness", title_justify="left")
    for one in found:
        table.add_row(one.name, _styled(one.state), " and ".join(one.missing) or one.then)
    upcoming = next_of(found)
    if upcoming is None:
        return [table]
    return [table, Text(f"next: {upcoming.name}, after {' and '.join(upcoming.missing)}")]


def _styled(state: str) -> str:
    return f"[{STYLES[state]}]{state}[/]"
