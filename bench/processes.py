"""Servers as child processes, pinned to a core.

`python bench/processes.py replica FOLDER DECISION_SHARE` and `… echo` are what the parent starts; they print their
address once they answer.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import grpc
import uvloop

ECHO_METHOD: Final = "/bench.Echo/Call"

_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = _CORES[0]
CLIENT_CORE: Final = _CORES[-1]


class Server(NamedTuple):
    """A running server."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Return the processor time that all its threads took so far."""
        return time.clock_gettime(~self.pid << 3 | 2)


def pinned(core: int | None, *command: str) -> list[str]:
    """Return the command that runs on one core only, or anywhere for None."""
    return list(command) if core is None else ["taskset", "--cpu-list", str(core), *command]


@contextlib.contextmanager
def running(*arguments: str, core: int | None = None) -> Iterator[Server]:
    """Yield a server of this file; killed in the end, for nothing it wrote is kept."""
    command = pinned(core, sys.executable, __file__, *arguments)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)
    try:
        address = process.stdout.readline().strip() if process.stdout else ""
        if not address:
            raise RuntimeError(f"{' '.join(command)} ended with status {process.wait()}; its log lines say why")
        yield Server(address, process.pid)
    finally:
        process.kill()
        process.communicate()


def _say(address: str) -> None:
    print(address, flush=True)


def _replica(data_dir: str, decision_share: str) -> None:
    from server.app import run_replica  # noqa: PLC0415 - the parent and the echo need no server
    from server.settings import DecisionSettings, ListenSettings, Settings  # noqa: PLC0415

    settings = Settings(
        data_dir=Path(data_dir),
        log_level="warning",
        listen=ListenSettings(port=0),
        decisions=DecisionSettings(share=float(decision_share)),
    )
    run_replica(settings, 0, _say)


async def _echo() -> None:
    """Serve the least a grpc.aio server can do: bytes in, the same bytes out."""

    async def answer(request: bytes, _context: object) -> bytes:
        return request

    service, _, method = ECHO_METHOD[1:].partition("/")
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    _say(f"127.0.0.1:{port}")
    await asyncio.Event().wait()


def main() -> None:
    """Run the server that the command line names."""
    kind, *arguments = sys.argv[1:]
    if kind == "replica":
        _replica(*arguments)
    else:
        uvloop.run(_echo())


if __name__ == "__main__":
    main()
