"""What `shopkeeper migrate` does: topics on Kafka and tables."""

from contextlib import closing
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from server.adapters.kafka_topics import Difference, change_topics, differences, make_topics
from server.cli.output import note
from server.ports import StreamSettingsError
from server.settings import KafkaSettings, Settings
from server.tables import prepare_store


def migrated(settings: Settings, *, change_topics: bool) -> tuple[dict[str, Any], RenderableType]:
    """Make what is missing; return the facts of `--json` and what is shown.

    Parameters
    ----------
    settings : of the installation
    change_topics : whether topics that were there before are changed where they differ from the settings
    """
    made, found = _topics(settings.kafka, change=change_topics) if settings.kafka.servers else ([], [])
    rows = [one._asdict() for one in found]
    with closing(prepare_store(settings)) as store:
        facts = {
            "clickhouse": "{}.{}".format(*store.version()),
            "migrations": store.applied(),
            "retention_days": settings.sink.retention_days,
            "topics_made": made,
            "topics_changed": rows if change_topics else [],
            "topics_differ": [] if change_topics else rows,
        }
    ends = f"after {days} days" if (days := settings.sink.retention_days) else "never"
    tables = f"tables are up to date (ClickHouse {facts['clickhouse']}), events and decisions end {ends}"
    shown = f"{tables}; topics made: {', '.join(made) or 'none'}"
    return facts, Group(shown, _table(found, is_changed=change_topics)) if found else shown


def _topics(settings: KafkaSettings, *, change: bool) -> tuple[list[str], list[Difference]]:
    """Return the topics that were made, and how those that were there before differ, or differed, from the settings."""
    try:
        found = change_topics(settings) if change else differences(settings)
    except StreamSettingsError as error:
        if change:
            raise
        note(f"topics are not compared with the settings: {error}")
        found = []
    return make_topics(settings), found


def _table(found: list[Difference], *, is_changed: bool) -> Table:
    title = (
        "changed topics"
        if is_changed
        else r"topics that differ: mend \[kafka], or `shopkeeper migrate --change-topics`"
    )
    before, after = ("before", "now") if is_changed else ("is", "by the settings")
    table = Table("topic", "config", before, after, title=title, title_justify="left")
    for one in found:
        table.add_row(*one)
    return table
