"""Parent of the processes of one machine: starts them, starts them again, stops them."""

import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple

import structlog

from server.ports import LogUnavailableError, StoreError
from server.settings import ListenSettings

START_FAILED: Final = 78
"""Exit status of a child that cannot start: another try would not help."""
KILLED: Final = 137
"""Exit status where a child did not end when it was told to, and was killed."""

_STOP_S: Final = 40.0
_TICK_S: Final = 0.2
_BACKOFF_S: Final = (0.5, 30.0)
_HEALTHY_S: Final = 60.0

_EXPECTED: Final = (OSError, RuntimeError, LogUnavailableError, StoreError)

_log = structlog.get_logger()


class Child(NamedTuple):
    """Process to keep alive.

    `target` names a function, `module:name`, that the child imports and calls with `args` and with a function to be
    told when the child is ready and under which address.
    """

    name: str
    target: str
    args: tuple[Any, ...]
    vital: bool = True
    """Whether the others end when it cannot start; else it is tried again while they serve."""


@dataclass
class _Keeper:
    """One child and its restarts."""

    child: Child
    process: BaseProcess | None = None
    messages: Connection | None = None
    address: str = ""
    start_time: float = 0.0
    due_time: float = 0.0
    backoff_s: float = field(default=_BACKOFF_S[0])

    def start(self) -> None:
        """Start the process; the parent's threads and channels are not inherited."""
        context = multiprocessing.get_context("spawn")
        self.messages, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_enter, args=(self.child, sender), name=self.child.name)
        self.process.start()
        sender.close()
        self.start_time = time.monotonic()

    def listen(self) -> None:
        """Take the child's message that it is ready."""
        if self.messages is not None and self.messages.poll():
            try:
                self.address = self.messages.recv()
            except EOFError:
                self.messages.close()
                self.messages = None

    def restart_later(self) -> None:
        """Plan the next start of a dead child: the sooner it died, the later."""
        if time.monotonic() - self.start_time > _HEALTHY_S:
            self.backoff_s = _BACKOFF_S[0]
        self.due_time = time.monotonic() + self.backoff_s
        self.backoff_s = min(2 * self.backoff_s, _BACKOFF_S[1])
        self.process = None


def supervise(children: Sequence[Child]) -> int:
    """Keep the children alive until SIGTERM or SIGINT; return the exit status.

    A vital child that ends with `START_FAILED` before it was ever ready ends all. Children that take too long to end,
    or are there at a second signal, are killed, and the status is `KILLED`.
    """
    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: signals.append(number))
    keepers = [_Keeper(child) for child in children]
    for keeper in keepers:
        keeper.start()
    status = _keep(keepers, signals)
    killed = _stop(keepers, signals)
    return status or (KILLED if killed else 0)


@contextmanager
def reserve_port(listen: ListenSettings) -> Iterator[int]:
    """Yield the port that the replicas shall share, kept for them so that no other server takes it.

    One replica takes its port itself, which fails loudly when the port is taken.

    Raises
    ------
    OSError : the port is taken
    """
    if listen.workers == 1:
        yield listen.port
        return
    family, *_, address = socket.getaddrinfo(listen.address.strip("[]"), listen.port, type=socket.SOCK_STREAM)[0]
    with (
        socket.socket(family, socket.SOCK_STREAM) as probe,
        socket.socket(family, socket.SOCK_STREAM) as reserved,
    ):
        # Closed connections that linger are no obstacle; a listener is one to the probe, and not to what is shared.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(address)
            port = probe.getsockname()[1]
            probe.close()
            reserved.bind((address[0], port, *address[2:]))
        except OSError as error:
            raise OSError(
                f"cannot listen on {listen.address}:{listen.port}: {error.strerror}; free it or set listen.port"
            ) from error
        yield port


def _keep(keepers: Sequence[_Keeper], signals: Sequence[int]) -> int:
    announced = False
    while not signals:
        alive = [keeper for keeper in keepers if keeper.process is not None]
        wait([keeper.process.sentinel for keeper in alive if keeper.process is not None], timeout=_TICK_S)
        for keeper in keepers:
            keeper.listen()
            if keeper.process is None:
                if time.monotonic() >= keeper.due_time:
                    keeper.start()
            elif (code := keeper.process.exitcode) is not None:
                if code == START_FAILED and keeper.child.vital and not keeper.address:
                    return START_FAILED
                _log.error("child died", name=keeper.child.name, exit_code=code, restart_s=keeper.backoff_s)
                keeper.restart_later()
        if not announced and all(keeper.address for keeper in keepers if keeper.child.vital):
            announced = True
            _log.info("ready", address=keepers[0].address, pids=[k.process.pid for k in keepers if k.process])
    return 0


def _stop(keepers: Sequence[_Keeper], signals: Sequence[int]) -> list[str]:
    """Tell all to end; return the names of those that had to be killed."""
    alive = {keeper.child.name: keeper.process for keeper in keepers if keeper.process is not None}
    for process in alive.values():
        process.terminate()
    killed: list[str] = []
    signal_count, deadline = len(signals), time.monotonic() + _STOP_S
    while alive := {name: process for name, process in alive.items() if process.is_alive()}:
        if not killed and (time.monotonic() > deadline or len(signals) > signal_count):
            killed = list(alive)
            for process in alive.values():
                process.kill()
        wait([process.sentinel for process in alive.values()], timeout=_TICK_S)
    if killed:
        _log.error("children killed", names=killed, fix="none: what was acknowledged is in the log")
    _log.info("stopped")
    return killed


def _enter(child: Child, sender: Connection) -> None:
    """Run in the child: the parent alone hears Ctrl-C, and a child does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    addresses: list[str] = []

    def ready(address: str) -> None:
        addresses.append(address)
        sender.send(address)

    try:
        pkgutil.resolve_name(child.target)(*child.args, ready)
    except Exception as error:
        if addresses:
            raise
        _log.error("cannot start", name=child.name, error=str(error), exc_info=not isinstance(error, _EXPECTED))
        sys.exit(START_FAILED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
