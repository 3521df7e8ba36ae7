"""Log lines: nothing personal is in them, and where they cannot be written the work goes on."""

import errno
import io
import json
import sys

import pytest
import structlog

from server.telemetry import configure_logging


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_lines_that_cannot_be_written_are_lost_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    logger = structlog.get_logger()
    monkeypatch.setattr(sys, "stderr", FullDisk())
    logger.error("nobody hears")
    healed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", healed)
    logger.error("heard")
    assert json.loads(healed.getvalue())["event"] == "heard"


def test_tracebacks_hold_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    configure_logging()
    fail("visitor-of-the-payload")
    line = json.loads(told.getvalue())
    assert line["exception"][0]["frames"][-1]["name"] == "fail"
    assert "visitor-of-the-payload" not in told.getvalue()


def fail(visitor: str) -> None:
    try:
        assert len(visitor) / 0
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
