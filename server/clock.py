"""The server's time: today, or another day for demos and replays."""

import time

from server.ports import Clock
from server.settings import ClockSettings


class SystemClock:
    """Time of the machine."""

    def now_ms(self) -> int:
        """Return the time, Unix milliseconds."""
        return time.time_ns() // 1_000_000


class ShiftedClock:
    """Time that began at `start_ms` when the clock was made and runs `rate` times as fast as the machine's.

    Parameters
    ----------
    start_ms : first time shown, Unix milliseconds
    rate : seconds shown a second; 0 stands still
    """

    def __init__(self, start_ms: int, rate: float = 1.0) -> None:
        self._start_ms = start_ms
        self._rate = rate
        self._began_ns = time.monotonic_ns()

    def now_ms(self) -> int:
        """Return the time, Unix milliseconds; never less than before."""
        return self._start_ms + int((time.monotonic_ns() - self._began_ns) * self._rate) // 1_000_000


def clock_of(settings: ClockSettings) -> Clock:
    """Return the clock that the settings ask for."""
    if settings.start is None and settings.rate == 1.0:
        return SystemClock()
    start_ms = SystemClock().now_ms() if settings.start is None else int(settings.start.timestamp() * 1000)
    return ShiftedClock(start_ms, settings.rate)
