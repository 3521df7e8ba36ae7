"""Locks between processes that tell who holds them."""

import fcntl
import os
from pathlib import Path
from typing import Self


class LockHeldError(Exception):
    """Another process holds the lock.

    Parameters
    ----------
    path : file of the lock
    owner : process id of the holder, as text; `?` if it has not said
    """

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"{path} is held by process {owner}")
        self.path = path
        self.owner = owner


class FileLock:
    """Lock that one process holds at a time, and that the system frees when the process dies.

    Raises
    ------
    LockHeldError : at once, when another process holds it
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "?"
            self._file.close()
            raise LockHeldError(path, owner) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Free the lock; may be repeated."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
