import os
from pathlib import Path

import pytest

from server.lockfile import FileLock, LockHeldError


def test_second_opener_learns_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    with FileLock(path), pytest.raises(LockHeldError, match=rf"{path} is held by process {os.getpid()}"):
        FileLock(path)
    FileLock(path).release()
