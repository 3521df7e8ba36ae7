"""A soak that lost, failed or grew is told by its exit status."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("soak")


@pytest.fixture
def figures() -> dict[str, Any]:
    return {
        "full_load": {"events_per_s": 400.0},
        "acknowledged": 100,
        "unanswered": 0,
        "counts": {"log of a": 100, "tables": 100},
        "errors": {},
        "faults_of_servers": 0.0,
        "middle_and_last_third": {
            "sink_lag": [200.0, 1_900.0],
            "outbox_age_s": [0.1, 4.9],
            "kafka_lag": [9_000.0, 13_000.0],
            "page_p99_ms": [1.0, 900.0],
        },
        "memory_mib_middle_and_last_third": {"Kafka": [300.0, 900.0], "a sink": [200.0, 235.0]},
    }


def test_soak_in_good_order_passes(soak: ModuleType, figures: dict[str, Any]) -> None:
    soak.check(figures)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"counts": {"log of a": 100, "tables": 99}}, "of 100 acknowledged events there are"),
        ({"errors": {"Recommend UNAVAILABLE": 1}}, "calls failed: .*UNAVAILABLE"),
        ({"faults_of_servers": 2.0}, "the servers count 2 faults"),
        ({"middle_and_last_third": {"sink_lag": [200.0, 2_001.0]}}, "sink_lag grows from 200 to 2001"),
        ({"middle_and_last_third": {"outbox_age_s": [0.1, 5.1]}}, "outbox_age_s grows"),
        ({"middle_and_last_third": {"kafka_lag": [9_000.0, 14_000.0]}}, "kafka_lag grows"),
        ({"memory_mib_middle_and_last_third": {"a sink": [200.0, 237.0]}}, "memory of a sink grows from 200 to 237"),
    ],
)
def test_soak_that_is_not_is_refused(
    soak: ModuleType, figures: dict[str, Any], change: dict[str, Any], why: str
) -> None:
    with pytest.raises(Exception, match=why) as caught:
        soak.check(figures | change)
    assert type(caught.value).__name__ == "WrongAnswerError"
