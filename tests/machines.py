"""Machines that exchange what they write by a list in place of Kafka."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core_rs import Engine
from server.adapters.inbox import SqliteInbox
from server.adapters.outbox import SqliteOutbox
from server.adapters.sqlite_log import SqliteLog
from server.ports import Arrival, LogRecord, NewRecord
from shopkeeper.v1.record_pb2 import RECORD_KIND_ERASURE

VISITORS: Final = ("u", "phone")
"""Of whom tests of erasures tell."""


class Machine:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = SqliteLog(path, commit_wait_ms=0)
        self.outbox = SqliteOutbox(path)
        self.inbox = SqliteInbox(path)
        self.shipped = self.read = 0

    def write(self, *records: NewRecord, time_ms: int = 5) -> None:
        list(self.log.import_records([records], time_ms))

    def ship(self, stream: list[Arrival]) -> None:
        """Put the next record into the stream."""
        for record in self.outbox.read(self.shipped, 1):
            stream.append(Arrival(record, self.outbox.origin, record.offset))
            self.shipped = record.offset

    def follow(self, stream: list[Arrival], count: int) -> None:
        end = min(len(stream), self.read + count)
        self.inbox.take(stream[self.read : end], {"topic/0": end})
        self.read = end

    def records(self) -> list[LogRecord]:
        return self.log.read(0, 10_000)

    def engine(self) -> Engine:
        """Return a replica of the log."""
        engine = Engine()
        engine.apply([(one.offset, one.kind, one.time_ms, one.payload) for one in self.records()])
        return engine

    def close(self) -> None:
        for part in (self.inbox, self.outbox, self.log):
            part.close()


def three_machines(folder: Path) -> Iterator[list[Machine]]:
    """Yield three machines whose logs are in `folder`."""
    machines = [Machine(folder / f"{name}.sqlite") for name in "abc"]
    yield machines
    for machine in machines:
        machine.close()


def exchange(stream: list[Arrival], *machines: Machine) -> None:
    """Let the machines ship all they have, one after the other, and then follow."""
    for machine in machines:
        while machine.shipped < machine.log.last_offset() and machine.outbox.read(machine.shipped, 1):
            machine.ship(stream)
    for machine in machines:
        machine.follow(stream, len(stream))


def kept(machine: Machine) -> list[tuple[str, int]]:
    """Return what a log has of `VISITORS`, beside erasures; a change may be made again, when it comes back."""
    found = [one for one in machine.records() if one.key in VISITORS and one.kind != RECORD_KIND_ERASURE]
    return sorted({(one.record_id or "stated", one.time_ms) for one in found})
