"""The processes of one machine: they come up, come back and go down without losing what was acknowledged."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from server.settings import ListenSettings, MetricsSettings, Settings
from server.telemetry import serve_metrics
from server.workers.supervisor import KILLED, reserve_port
from shopkeeper.calls import event
from shopkeeper.client import CallError, Client
from shopkeeper.v1.event_pb2 import EventType
from shopkeeper.v1.event_service_pb2 import EventResult
from tests.table_shop import wait_until

START_S = 180


@contextlib.contextmanager
def serving(data_dir, *flags):
    command = [sys.executable, "-m", "server", "--data-dir", str(data_dir), "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def ready_line(process):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        line = process.stderr.readline()
        if '"ready"' in line:
            return line
    raise AssertionError("not ready")


def address_of(line):
    return re.search(r"127\.0\.0\.1:\d+", line)[0]


def record_until_refused(address, acknowledged):
    with Client(address) as client, contextlib.suppress(CallError):
        while True:
            batch = [event(EventType.EVENT_TYPE_VIEW, "v", ["bread"])]
            if client.record(batch).results[0].status == EventResult.STATUS_ACCEPTED:
                acknowledged += batch


def test_what_was_acknowledged_before_sigterm_is_there_after_a_restart(tmp_path):
    acknowledged = []
    with serving(tmp_path) as process:
        address = address_of(ready_line(process))
        writers = [threading.Thread(target=record_until_refused, args=(address, acknowledged)) for _ in range(4)]
        for writer in writers:
            writer.start()
        wait_until(lambda: len(acknowledged) > 10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(180) == 0
        for writer in writers:
            writer.join()
    with serving(tmp_path) as process, Client(address_of(ready_line(process))) as client:
        repeats = client.record(acknowledged[:1000]).results
        assert {result.status for result in repeats} == {EventResult.STATUS_DUPLICATE}
        assert client.profile("v").live_state.event_count >= len(acknowledged)


def test_a_killed_replica_comes_back_on_the_same_port(tmp_path):
    with serving(tmp_path, "--workers", "2") as process:
        line = ready_line(process)
        pids = [int(pid) for pid in re.search(r'"pids": \[([\d, ]+)\]', line)[1].split(",")]
        os.kill(pids[0], signal.SIGKILL)
        with Client(address_of(line), timeout_s=60) as client:
            client.record([event(EventType.EVENT_TYPE_VIEW, "v", ["bread"])])
            deadline = time.monotonic() + START_S
            while '"child died"' not in process.stderr.readline():
                assert time.monotonic() < deadline
            while client.profile("v").live_state.event_count != 1:
                assert time.monotonic() < deadline
        assert process.poll() is None


def test_a_second_server_on_one_folder_is_refused_at_once(tmp_path):
    with serving(tmp_path) as first:
        ready_line(first)
        with serving(tmp_path) as second:
            _, errors = second.communicate(timeout=START_S)
        assert second.returncode != 0
        assert f"is served by process {first.pid}; stop it, or name another folder" in errors
        assert first.poll() is None


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_is_said_at_start(tmp_path, workers):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with serving(tmp_path, "--workers", workers, "--port", str(port)) as process:
            _, errors = process.communicate(timeout=START_S)
    assert process.returncode != 0
    assert str(port) in errors
    assert "listen.port" in errors


def test_a_taken_port_of_the_metrics_is_said_at_start():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings(metrics=MetricsSettings(port=port - 1))
        with pytest.raises(OSError, match=f"{port} .*set metrics.port"):
            serve_metrics(settings, 1)


def polite(ready):
    ready("here")
    time.sleep(60)


def stubborn(ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready("here")
    time.sleep(60)


SUPERVISED = """
import sys
from server.workers import supervisor
supervisor._STOP_S = float(sys.argv[1])
children = [supervisor.Child(name, f"tests.integration.test_supervisor:{name}", ()) for name in sys.argv[2:]]
raise SystemExit(supervisor.supervise(children))
"""


@pytest.mark.parametrize(
    ("stop_s", "children", "signal_count", "status"),
    [
        (30, ["polite"], 1, 0),
        (0.5, ["polite", "stubborn"], 1, KILLED),
        (30, ["polite", "stubborn"], 2, KILLED),
    ],
    ids=["in good order", "too late", "a second signal"],
)
def test_a_child_that_had_to_be_killed_is_told_by_the_status(stop_s, children, signal_count, status):
    command = [sys.executable, "-c", SUPERVISED, str(stop_s), *children]
    process = subprocess.Popen(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True)
    try:
        while "ready" not in (line := process.stdout.readline()):
            assert line, "it ended"
        for _ in range(signal_count):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
        output, _ = process.communicate(timeout=START_S)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "children killed" in output) == (status, status == KILLED)


def listening(port=0):
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def test_a_port_with_lingering_connections_is_reserved_and_one_with_a_listener_is_not():
    with listening() as server:
        port = server.getsockname()[1]
        listen = ListenSettings(address="127.0.0.1", port=port, workers=2)
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            taken, _ = server.accept()
            taken.close()
            assert visitor.recv(1) == b""
        with pytest.raises(OSError, match=f"{port}: .*; free it or set listen.port"), reserve_port(listen):
            pass
    with socket.socket() as careless, pytest.raises(OSError, match="in use"):
        careless.bind(("127.0.0.1", port))
    with reserve_port(listen) as reserved:
        assert reserved == port
        listening(port).close()
