"""Processes of Ray that die, starve or cannot start: their task is tried again, then given up with what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

DIE = """
import os, resource, signal, subprocess, sys, time
from pathlib import Path
from trainers.shards import workers as module

def once(mark):
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "again"

def abort(_):
    os.abort()

def same(value):
    return value

def late(value):
    time.sleep(40)
    return value

def told(promise):
    try:
        return group.result(promise)
    except ConnectionError as error:
        return str(error)

module.START_S = 30.0 if sys.argv[2] == "starts no process" else module.START_S
with module.workers(2) as group:
    if sys.argv[2] == "dies":
        assert told(group.run(once, Path(sys.argv[1]) / "mark")) == "again"
        for promise in (group.run(abort, 1), group.run(same, group.run(abort, 2))):
            assert "died 3 times" in (text := told(promise)) and "fewer --processes" in text, text
    elif sys.argv[2] == "memory":
        assert "died 3 times" in (text := told(group.run(same, 1))) and "low on memory" in text, text
    else:
        assert told(group.run(late, 1)) == 1
        (raylet,) = subprocess.check_output(["pgrep", "-P", str(os.getpid()), "-x", "raylet"], text=True).split()
        resource.prlimit(int(raylet), resource.RLIMIT_AS, (400 << 20, 400 << 20))
        assert "could start no process within 30 s" in (text := told(group.run(abort, 1))), text
"""


@pytest.mark.parametrize(
    ("fault", "setting"),
    [("dies", {}), ("memory", {"RAY_memory_usage_threshold": "0.01"}), ("starts no process", {})],
    ids=["a process that dies", "memory that is never enough", "no process that can start"],
)
def test_a_task_whose_process_dies_is_tried_again_and_given_up(fault, setting, tmp_path):
    command = [sys.executable, "-c", DIE, str(tmp_path), fault]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | setting
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=280)
