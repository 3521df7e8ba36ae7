"""What the server needs of the outside world; services and workers see these names, adapters stand behind them."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class LogUnavailableError(Exception):
    """The log cannot be read or written now; the text names the file and what to do. UNAVAILABLE."""


class LogWentBackError(Exception):
    """The stream has records of this log that this log never had: its file is a copy, older than what it shipped.

    Attributes
    ----------
    origin : name under which they were shipped
    offset : lowest of theirs that was found
    """

    def __init__(self, origin: str, offset: int) -> None:
        super().__init__(f"Kafka has a record {offset} of this log that this log never had; start anew")
        self.origin = origin
        self.offset = offset


class StreamUnavailableError(Exception):
    """Kafka does not answer or does not take records now; the same may work later."""


class StreamSettingsError(StreamUnavailableError):
    """Kafka and its settings do not fit; the text names the setting. Once it is mended, the same may work."""


class StreamOutdatedError(StreamUnavailableError):
    """Kafka lacks topics of ours; `shopkeeper migrate` makes them."""


class StoreError(Exception):
    """The table view cannot do what was asked; the text says why and what to do."""


class StoreBusyError(StoreError):
    """Another process owns the table view."""


class StoreUnavailableError(StoreError):
    """The table view does not answer or takes nothing now; the same may work later."""


class StoreSettingsError(StoreUnavailableError):
    """The server of the tables and its settings do not fit; the text names the setting."""


class StoreOutdatedError(StoreError):
    """The tables are not made, or are those of an older version; `shopkeeper migrate` brings them up to date."""


class StoreRowsError(StoreError):
    """Some row does not fit its table; without it the others are taken."""


class NewRecord(NamedTuple):
    """Record to append."""

    kind: int
    """`RecordKind`; decides the message of `payload`."""
    key: str
    """Visitor the record belongs to; empty where it belongs to none."""
    record_id: str
    """Id under which the record is stored once; empty where repeats are welcome."""
    payload: bytes


NO_RECORD: Final = -1
"""Kind of a message that is no record of ours."""


class LogRecord(NamedTuple):
    """Record of the log."""

    offset: int
    kind: int
    time_ms: int
    key: str
    record_id: str
    payload: bytes


class Erasure(NamedTuple):
    """When a visitor was forgotten."""

    offset: int
    """Of the record; what does not tell when a log took it is forgotten where it is before this."""
    time_ms: int
    """Of the record; what a log took at this time or before is forgotten, wherever it comes."""


class Arrival(NamedTuple):
    """Record as it came from the stream, with the log that it was written to first."""

    record: LogRecord
    origin: str
    origin_offset: int


class Batch(NamedTuple):
    """Records that a `Feed` read, and where it is after them."""

    records: list[LogRecord]
    positions: dict[str, int]
    """Offset by name of each part of the log that was read; there may be some where all records were repeats."""


class AppendStatus(IntEnum):
    """What became of an appended record; the numbers are those that `EventBatch.reply` takes."""

    STORED = 0
    DUPLICATE = 1
    """The same id and payload were there already."""
    CONFLICT = 2
    """The same id was there with another payload; nothing changed."""


class Clock(Protocol):
    """Time for which answers are made."""

    def now_ms(self) -> int:
        """Return the time, Unix milliseconds."""


class EventLog(Protocol):
    """The one ordered record of everything that changed. Every method may be called from any thread."""

    async def append(self, records: Sequence[NewRecord], time_ms: int) -> list[AppendStatus]:
        """Return one status a record, once all are on disk and the commit hooks have run.

        Raises LogUnavailableError when nothing was stored.
        """
        ...

    def append_later(self, records: Sequence[NewRecord], time_ms: int) -> bool:
        """Return whether the records were queued for a coming commit; never blocks. A refusal is counted.

        A decision or a denial whose visitor is forgotten before that commit is left out.
        """
        ...

    def import_records(self, batches: Iterable[Sequence[NewRecord]], time_ms: int) -> Iterator[list[AppendStatus]]:
        """Yield the statuses of each batch once it is on disk; blocks. Large batches make large commits."""
        ...

    @property
    def dropped_count(self) -> int:
        """Records that `append_later` took or was offered and that are not in the log."""
        ...

    def read(
        self, after: int, limit: int, *, bare_kinds: Collection[int] = (), skip_kinds: Collection[int] = ()
    ) -> list[LogRecord]:
        """Return up to `limit` records above the offset `after`, in order.

        `bare_kinds` come without their payload, `skip_kinds` not at all.

        Fewer come where their payloads are large; none only where there are none.
        """
        ...

    def last_offset(self) -> int:
        """Return the offset of the last record; 0 if there is none."""
        ...

    def trimmed_offset(self) -> int:
        """Return the offset up to which records were removed because others have them; 0 if none was."""
        ...

    def records_of(self, key: str, *, after_ms: int = -1) -> Iterator[LogRecord]:
        """Yield the records of one visitor that a log took after a time, in order; what it stated also if trimmed."""
        ...

    def anonymous_ids(self, key: str) -> set[str]:
        """Return the anonymous ids that became the visitor, as its events show, those that were removed included.

        No id of which an event says that it is a user's: an event of one user with the id of another merges nothing.
        """
        ...

    def statements(self, after: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records of what was stated about visitors above the offset `after`, in order.

        Those are kept until their visitor is forgotten, whatever else is removed.
        """
        ...

    def erase(self, key: str) -> int:
        """Delete the events, decisions and statements of the visitor's newest erasure's time or older; return how many.

        What came after its last erasure record is kept, but for what is queued: decisions and what was taken over.
        The erasure record stays, so that every view learns of it, and no offset is used twice.
        """
        ...

    def finish_erasures(self) -> int:
        """Delete what erasures are about that nobody deleted, as after a crash; return how many records."""
        ...

    def on_commit(self, hook: Callable[[int], object]) -> None:
        """Call `hook(last offset)` after each commit of this process and before its callers learn of it."""
        ...

    def close(self) -> None:
        """Write what is queued and close; may be repeated."""


class Kept(NamedTuple):
    """What of a log stays though Kafka has it."""

    after: int
    """Offset after which a replica needs it."""
    young: range
    """Times, Unix milliseconds, of records that stay, with all that follow; later ones are of wrong clocks."""


ALL_KEPT: Final = Kept(0, range(0))
"""Nothing is dropped."""


class OutboxSize(NamedTuple):
    """What waits in an outbox."""

    record_count: int
    byte_count: int
    oldest_ms: int
    """When the oldest was written, Unix milliseconds, but for grants taken over, whose time is another; 0 for none."""


class Outbox(Protocol):
    """The log of this machine as the shipper drains it."""

    @property
    def origin(self) -> str:
        """Name of this log among all logs."""
        ...

    def shipped(self) -> int:
        """Return the offset up to which own records were shipped; 0 at first."""
        ...

    def last_offset(self) -> int:
        """Return the offset of the last record, whoever wrote it; 0 if there is none."""
        ...

    def mark_shipped(self, offset: int) -> None:
        """Keep the offset; to be called after the records up to it are acknowledged."""

    def read(self, after: int, limit: int) -> list[LogRecord]:
        """Return up to `limit` records above the offset `after` that were written to this log first, in order.

        Fewer come where their payloads are large; none only where there are none.
        """
        ...

    def size(self, after: int) -> OutboxSize:
        """Return how many own records are above the offset `after`."""
        ...

    def trim(self, kept: Kept, until: int) -> int:
        """Delete what is not kept of the records up to the offset `until`; return how many."""
        ...


class Stream(Protocol):
    """Where the shipper brings records."""

    def send(self, records: Sequence[LogRecord], origin: str) -> int:
        """Return how many records, from the first on, are acknowledged now; at least one.

        Raises StreamUnavailableError, and then nothing is known of the records: they are to be sent again.
        """
        ...


class Feed(Protocol):
    """The log as the sink follows it: record after record, from where the tables are.

    The offsets of its records are unique, and rise within what belongs to one visitor, item or document.
    """

    def begin(self, positions: Callable[[], Mapping[str, int]]) -> None:
        """Go on after the positions, which are asked for whenever a part of the log becomes ours to read.

        Raises StoreError when they belong to another log.
        """

    def read(self, limit: int) -> Batch:
        """Return up to `limit` records; each comes once, in order within its part."""
        ...

    def lag(self) -> int:
        """Return how many records there are still to read, as far as is known."""
        ...

    def close(self) -> None:
        """Let others read; may be repeated."""


class ArrivalFeed(Protocol):
    """The stream as the follower reads it; a `Feed` whose records say where they come from."""

    def begin(self, positions: Callable[[], Mapping[str, int]]) -> None:
        """Go on after the positions."""

    def read_arrivals(self, limit: int) -> tuple[list[Arrival], dict[str, int]]:
        """Return up to `limit` arrivals, and the places after them; none where there was nothing."""
        ...

    def ends(self) -> dict[str, int]:
        """Return the place of the last record of each part that has any."""
        ...

    def missed(self) -> bool:
        """Return whether records after the positions are gone."""
        ...

    def lag(self) -> int:
        """Return how many records there are still to read, as far as is known."""
        ...


class Inbox(Protocol):
    """The log of this machine as the follower fills it."""

    def places(self) -> dict[str, int]:
        """Return the place reached in each part of the stream."""
        ...

    def take(self, arrivals: Sequence[Arrival], places: Mapping[str, int]) -> int:
        """Append what others wrote and the log has not, and keep the places; return how many were appended.

        Raises LogWentBackError, and then nothing was appended or kept.
        """
        ...

    def part_from(self, origin: str, offset: int) -> None:
        """Take what `origin`, a name of this log, wrote from `offset` on for another log's, and go on under a new name.

        What this log itself has from `offset` on is shipped again; to be called while nothing is shipped.
        """

    def rename(self) -> None:
        """Go on under a new name; what was written under the old one stays our own."""


class RowStore(Protocol):
    """What rows are written to."""

    def insert(self, table: str, rows: "pa.Table") -> None:
        """Add rows; a row with a known key replaces the old one."""

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> "pa.Table":
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter."""

    def erasures(self) -> dict[str, Erasure]:
        """Return the newest erasure of each visitor who was forgotten."""
        ...

    def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Delete all rows that the erasures are about, and keep the erasures."""


class EventStore(RowStore, Protocol):
    """The table view: what trainers and reports read."""

    def migrate(self, *, retain: bool = True) -> list[str]:
        """Bring the tables up to date; return the names of the migrations applied now.

        Without `retain`, rows of tables that were there go on ending as they did.
        """
        ...

    def positions(self) -> dict[str, int]:
        """Return the offset, by name, up to which each part of the log is in the tables; empty at first."""
        ...

    def save_positions(self, positions: Mapping[str, int]) -> None:
        """Keep the positions; to be called after the rows up to them are inserted. None goes back."""

    def export(self, folder: Path) -> None:
        """Write `events`, `items`, `profiles`, `placements` as Parquet files and `meta.json` to a new folder."""

    def version(self) -> tuple[int, int]:
        """Return major and minor version of the database."""
        ...

    def close(self) -> None:
        """Let go of the tables, so that another process may open them."""
