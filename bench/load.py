"""Load of gRPC calls by h2load, a client in C that leaves the server's core alone."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from measure import MissingToolError, quantile, require
from processes import CLIENT_CORE, Server, pinned

_FRAME_BYTES: Final = 5
_HTTP_OK: Final = "200"


class Load(NamedTuple):
    """What a load of calls saw."""

    calls_per_s: float
    cpu_us: float
    """Processor time of the server, a call."""
    p50_ms: float
    p99_ms: float
    response_bytes: float


def need_h2load() -> None:
    """Install h2load where this is Debian and we may; otherwise raise MissingToolError."""
    if shutil.which("h2load"):
        return
    install = ["apt-get", "install", "--yes", "nghttp2-client"]
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(install, check=False, stdout=sys.stderr)
    if not shutil.which("h2load"):
        raise MissingToolError(f"h2load is missing: install it with `{' '.join(install)}`, then run this again")


def load(server: Server, method: str, requests: Sequence[bytes], streams: int, seconds: float) -> Load:
    """Return what calls of `method` took, with one connection for each of `requests` and `streams` calls on each."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        before_s = server.cpu_s()
        clients = []
        for index, request in enumerate(requests):
            body, log = folder / f"{index}.bin", folder / f"{index}.log"
            body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
            command = _command(f"http://{server.address}{method}", body, log, streams, seconds)
            process = subprocess.Popen(pinned(CLIENT_CORE, *command), stdout=subprocess.PIPE, text=True)
            clients.append((stack.enter_context(process), log))
        outputs = [process.communicate()[0] for process, _ in clients]
        cpu_s = server.cpu_s() - before_s
        return _result(outputs, [log for _, log in clients], cpu_s, seconds)


def _command(url: str, body: Path, log: Path, streams: int, seconds: float) -> list[str]:
    shape = [
        "--clients=1",
        f"--max-concurrent-streams={streams}",
        f"--duration={seconds * 1e3:.0f}ms",
        f"--log-file={log}",
    ]
    headers = ["--header=content-type: application/grpc", "--header=te: trailers"]
    return ["h2load", *shape, *headers, f"--data={body}", url]


def _result(outputs: Sequence[str], logs: Sequence[Path], cpu_s: float, seconds: float) -> Load:
    data_bytes = 0
    for output in outputs:
        found = re.search(r"(\d+) succeeded, (\d+) failed.*?\((\d+)\) data", output, re.DOTALL)
        require(found is not None and int(found[1]) > 0, f"h2load did not get answers:\n{output}")
        data_bytes += int(found[3]) if found else 0
    lines = [line.split("\t") for log in logs for line in log.read_text().splitlines()]
    require(all(status == _HTTP_OK for _, status, _ in lines), "an answer has another HTTP status than 200")
    times_ms = [int(time_us) / 1e3 for _, _, time_us in lines]
    return Load(
        calls_per_s=len(times_ms) / seconds,
        cpu_us=cpu_s / len(times_ms) * 1e6,
        p50_ms=quantile(times_ms, 0.5),
        p99_ms=quantile(times_ms, 0.99),
        response_bytes=data_bytes / len(times_ms) - _FRAME_BYTES,
    )
