"""The log of this machine as the sink follows it."""

from collections.abc import Callable, Mapping
from typing import Final

import structlog

from server import telemetry
from server.ports import Batch, EventLog, StoreError

NAME: Final = "log"
"""Of the one part that this log has."""

_logger = structlog.get_logger(__name__)


class LogFeed:
    """`Feed` of an `EventLog`, which stays its owner's to close."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._offset = 0

    def begin(self, positions: Callable[[], Mapping[str, int]]) -> None:
        """Go on after the position; StoreError where the log ends before it, or the tables were fed by Kafka."""
        found = positions()
        if strange := found.keys() - {NAME}:
            raise StoreError(
                f"the tables follow {min(strange)}, not a local log; set kafka.servers, or empty the tables"
            )
        self._offset = found.get(NAME, 0)
        if self._offset > (last := self._log.last_offset()):
            raise StoreError(
                f"the tables hold offset {self._offset} and the log ends at {last}, so they belong to another log; "
                "move the folder of the tables away, and they are made again"
            )

    def read(self, limit: int) -> Batch:
        """Return up to `limit` records after those that were read; what was trimmed before is counted as lost."""
        if (gone := self._log.trimmed_offset() - self._offset) > 0:
            telemetry.LOST_OFFSETS.inc(gone)
            _logger.error("records_gone", part=NAME, offsets=gone, fix="lengthen kafka.keep_hours")
            self._offset += gone
        records = self._log.read(self._offset, limit)
        if not records:
            return Batch([], {})
        self._offset = records[-1].offset
        return Batch(records, {NAME: self._offset})

    def lag(self) -> int:
        """Return how many offsets there are still to read."""
        return max(0, self._log.last_offset() - self._offset)

    def close(self) -> None:
        """Do nothing."""
