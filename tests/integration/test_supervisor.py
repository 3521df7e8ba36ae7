"""The processes of one machine: they come up, come back and go down without losing what was acknowledged."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from shopkeeper.calls import event
from shopkeeper.client import Client
from shopkeeper.v1.event_pb2 import EventType

START_S = 60


@contextmanager
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


def test_events_survive_sigterm_and_are_in_the_next_start(tmp_path):
    with serving(tmp_path) as process:
        with Client(address_of(ready_line(process)), timeout_s=10) as client:
            client.record([event(EventType.EVENT_TYPE_VIEW, "v", ["bread"])])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with serving(tmp_path) as process, Client(address_of(ready_line(process)), timeout_s=10) as client:
        assert client.profile("v").live_state.recent[0].item_id == "bread"


def test_a_killed_replica_comes_back_on_the_same_port(tmp_path):
    with serving(tmp_path, "--workers", "2") as process:
        line = ready_line(process)
        pids = [int(pid) for pid in re.search(r'"pids": \[([\d, ]+)\]', line)[1].split(",")]
        os.kill(pids[0], signal.SIGKILL)
        with Client(address_of(line), timeout_s=10) as client:
            client.record([event(EventType.EVENT_TYPE_VIEW, "v", ["bread"])])
            deadline = time.monotonic() + START_S
            while '"child died"' not in process.stderr.readline():
                assert time.monotonic() < deadline
            while client.profile("v").live_state.event_count != 1:
                assert time.monotonic() < deadline
        assert process.poll() is None


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
