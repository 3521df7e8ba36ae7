"""A server of our own as a child process."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

from server.cli.remote import is_serving
from server.ports import LogUnavailableError
from server.settings import ENV_PREFIX

_START_S = 120.0
_STOP_S = 60.0
_ADDRESS = "127.0.0.1"
_LOG_FILE = "server.log"


@contextmanager
def running_server(data_dir: Path, port: int, settings: Mapping[str, str]) -> Iterator[str]:
    """Give the address of a server that answers; it is stopped at the end.

    Parameters
    ----------
    data_dir : Path
        Its data folder; its log lines go to `server.log` there.
    port : int
        Port to listen on.
    settings : Mapping[str, str]
        Further settings by environment name without prefix, e.g. `CLOCK__RATE`.

    Raises
    ------
    LogUnavailableError
        When it does not start; the text names its log file.
    """
    command = [sys.executable, "-m", "server", "--data-dir", str(data_dir), "--port", str(port)]
    environment = {**os.environ, **{f"{ENV_PREFIX}{name}": value for name, value in settings.items()}}
    with (data_dir / _LOG_FILE).open("ab") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)  # noqa: S603
        try:
            address = f"{_ADDRESS}:{port}"
            _await_answer(child, address, data_dir / _LOG_FILE)
            yield address
        finally:
            _stop(child)


def free_port(wanted: int) -> int:
    """Return `wanted` if nothing listens there, else a free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_ADDRESS, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def _await_answer(child: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and child.poll() is None:
        with suppress(grpc.RpcError):
            if is_serving(address, timeout_s=1.0):
                return
        time.sleep(0.1)
    ended = child.poll()
    state = f"ended with status {ended}" if ended is not None else f"does not answer after {_START_S:.0f} s"
    raise LogUnavailableError(f"the server at {address} {state}; {log} says why")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
