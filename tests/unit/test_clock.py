import time

import pytest

from server.clock import ShiftedClock, clock_of
from server.settings import load_settings


def test_default_clock_shows_the_time_of_the_machine() -> None:
    assert clock_of(load_settings(None, {}).clock).now_ms() == pytest.approx(time.time() * 1000, abs=1000)


def test_frozen_clock_stands_at_its_start() -> None:
    clock = clock_of(load_settings(None, {"clock.start": "2017-03-01T12:00:00+01:00", "clock.rate": 0}).clock)
    assert clock.now_ms() == clock.now_ms() == 1_488_366_000_000


def test_fast_clock_runs_ahead() -> None:
    clock = ShiftedClock(0, rate=1000)
    time.sleep(0.02)
    assert 20_000 <= clock.now_ms() < 20_000_000
