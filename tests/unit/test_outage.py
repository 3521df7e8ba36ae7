"""What fails again and again is told in few lines, and its end too."""

import pytest
from structlog.testing import capture_logs

from server.ports import StoreSettingsError, StoreUnavailableError
from server.workers import outage as module
from server.workers.outage import Outage


def test_outage_is_told_anew_for_another_cause_and_each_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    outage = Outage("not_followed", "wait")
    with capture_logs() as lines:
        outage.end()
        for now[0] in range(0, 100, 5):
            outage.tell(StoreUnavailableError("away"))
        outage.tell(StoreSettingsError("the password"))
        outage.end()
        outage.end()
    told = [(line["event"], line.get("since_s", line.get("after_s"))) for line in lines]
    assert told == [("not_followed", 0), ("not_followed", 60), ("not_followed", 95), ("works_again", 95)]
