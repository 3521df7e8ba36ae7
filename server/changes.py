"""Changes that depend on what was there before: one at a time, in all processes that share a log."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from server.lockfile import FileLock, LockHeldError

_POLL_S: Final = 0.005


class Changes:
    """Changes of one kind.

    Parameters
    ----------
    path : file of their lock, the same in all processes
    follow : brings the engine to the end of the log; blocks
    """

    def __init__(self, path: Path, follow: Callable[[], object]) -> None:
        self._path = path
        self._follow = follow
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the others off: what is read from the engine within still holds when the log takes the change."""
        async with self._lock:
            with await self._held():
                await asyncio.to_thread(self._follow)
                yield

    async def _held(self) -> FileLock:
        while True:
            with suppress(LockHeldError):
                return FileLock(self._path)
            await asyncio.sleep(_POLL_S)
