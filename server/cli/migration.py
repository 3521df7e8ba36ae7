"""What `shopkeeper migrate` does: topics on Kafka and tables."""

from contextlib import closing
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from server.adapters.inbox import places_of
from server.adapters.kafka import check_places
from server.adapters.kafka_topics import DIFFERENCE_FIX, Difference, change_topics, differences, make_topics
from server.cli.output import CliError, Exit, note
from server.ports import StoreError, StreamSettingsError
from server.settings import KafkaSettings, Settings
from server.tables import prepare_store


def migrated(settings: Settings, *, change_topics: bool) -> tuple[dict[str, Any], RenderableType]:
    """Make what is missing; return the facts of `--json` and what is shown.

    Parameters
    ----------
    settings : of the installation
    change_topics : whether topics that were there before are changed where they differ from the settings
    """
    if settings.kafka.servers:
        _check_prefix(settings)
    made, changed, left = _topics(settings.kafka, change=change_topics) if settings.kafka.servers else ([], [], [])
    with closing(prepare_store(settings)) as store:
        facts = {
            "clickhouse": "{}.{}".format(*store.version()),
            "migrations": store.applied(),
            "retention_days": settings.sink.retention_days,
            "topics_made": made,
            "topics_changed": [one._asdict() for one in changed],
            "topics_differ": [one._asdict() for one in left],
        }
    ends = f"after {days} days" if (days := settings.sink.retention_days) else "never"
    tables = f"tables are up to date (ClickHouse {facts['clickhouse']}), their events and decisions end {ends}"
    shown = f"{tables}; topics made: {', '.join(made) or 'none'}"
    return facts, Group(shown, *(_table(ones, is_changed=ones is changed) for ones in (changed, left) if ones))


def _check_prefix(settings: Settings) -> None:
    """Raise CliError where this machine's log followed topics of another prefix, before new ones are made."""
    try:
        check_places(settings.kafka, places_of(settings.log_path) if settings.log_path.exists() else ())
    except StoreError as error:
        then = "set it back, or name a new folder with `--data-dir`"
        raise CliError("kafka.prefix was changed.", why=str(error), then=then, code=Exit.CONFIG) from error


def _topics(settings: KafkaSettings, *, change: bool) -> tuple[list[str], list[Difference], list[Difference]]:
    """Return the topics that were made, what was changed of others, and how these differ from the settings still."""
    changed = change_topics(settings) if change else []
    try:
        found = differences(settings)
    except StreamSettingsError as error:
        note(f"topics are not compared with the settings: {error}")
        found = []
    left = [one for one in found if one not in changed]  # a broker hears of changes a moment later
    return make_topics(settings), changed, left


def _table(found: list[Difference], *, is_changed: bool) -> Table:
    title = "changed topics" if is_changed else f"topics that differ: {escape(DIFFERENCE_FIX)}"
    before, after = ("before", "now") if is_changed else ("is", "by the settings")
    table = Table("topic", "config", before, after, title=title, title_justify="left")
    for one in found:
        table.add_row(*one)
    return table
