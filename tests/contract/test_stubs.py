import subprocess
import sys


def test_the_stub_of_the_extension_tells_what_is_there() -> None:
    command = [sys.executable, "-m", "mypy.stubtest", "core_rs._native"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
