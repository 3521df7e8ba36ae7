"""A whole server in processes of its own, which a test may kill."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import grpc

FROZEN = {"SHOPKEEPER__CLOCK__START": "2026-01-15T12:00:00Z", "SHOPKEEPER__CLOCK__RATE": "0"}
"""Clock that stands still, so that answers before and after a restart are for the same moment."""


class ShopProcess:
    """Server on a free port with its sink; `kill` ends all of its processes at once."""

    def __init__(self, data_dir: Path, *, workers: int = 1, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = (data_dir.parent / "server.log").open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "server",
                "--data-dir",
                data_dir,
                "--port",
                str(self.port),
                "--workers",
                str(workers),
            ],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            env={**os.environ, **FROZEN, **environment},
        )
        options = (("grpc.max_reconnect_backoff_ms", 500),)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", options)

    @property
    def pid(self) -> int:
        """Id of the parent of the server's processes."""
        return self._process.pid

    def call(self, method: str, request: bytes, timeout_s: float = 180.0) -> bytes:
        """Return the bytes of an answer; waits for a server that is starting: a minute on a busy machine."""
        return self.channel.unary_unary(f"/shopkeeper.v1.{method}")(request, timeout=timeout_s, wait_for_ready=True)

    def kill(self) -> None:
        """Send SIGKILL to every process of the server."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Send SIGTERM; return the exit status."""
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Return the exit status of a server that ends."""
        self._process.wait(180)
        self._end()
        return self._process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()
        self._log.close()

    def _end(self) -> None:
        self.channel.close()
        self._process.wait(60)
        deadline = time.monotonic() + 30
        while self._group_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._log.close()

    def _group_alive(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
