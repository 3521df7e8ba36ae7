"""Clock that a test sets, for a server in its own process."""

import pytest

from server import app


class SetClock:
    """Tells `time_ms` until a test changes it."""

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def now_ms(self) -> int:
        return self.time_ms


def set_clock(monkeypatch: pytest.MonkeyPatch, time_ms: int) -> SetClock:
    """Give the clock of servers that start from now on."""
    clock = SetClock(time_ms)
    monkeypatch.setattr(app, "clock_of", lambda _: clock)
    return clock
