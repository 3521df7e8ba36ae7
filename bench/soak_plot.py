"""The plot of a soak: memory, what waits, and how long answers take, over time."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

_WAITING: Final = {"outbox": "outboxes", "kafka_lag": "Kafka to logs and tables", "replica_lag": "logs to replicas"}
_TIMES: Final = {"page_p50_ms": "page, median", "page_p99_ms": "page, p99", "batch_p99_ms": "20 events, p99"}


def draw(figures: dict[str, Any], path: Path) -> None:
    """Write the plot of `figures`, as bench/soak.py makes them, to `path`."""
    samples = figures["samples"]
    minutes = [sample["second"] / 60 for sample in samples]
    figure, (memory, waiting, times) = plt.subplots(3, 1, figsize=(9, 9), sharex=True, layout="constrained")
    for name in samples[-1]["memory_mib"]:
        memory.plot(minutes, [sample["memory_mib"].get(name) for sample in samples], label=name, linewidth=1)
    for axis, names in ((waiting, _WAITING), (times, _TIMES)):
        for name, label in names.items():
            axis.plot(minutes, [sample[name] for sample in samples], label=label, linewidth=1)
    memory.set(ylabel="resident memory, MiB", title=_title(figures))
    waiting.set(ylabel="records that wait")
    times.set(ylabel="milliseconds", xlabel="minutes", yscale="log")
    for axis in (memory, waiting, times):
        axis.set_ylim(bottom=None if axis is times else 0)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small", ncols=2, loc="upper right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _title(figures: dict[str, Any]) -> str:
    full = figures["full_load"]
    return (
        f"two machines, {full['events_per_s'] / 2:,.0f} events and {full['pages_per_s'] / 2:,.0f} pages a second "
        f"for {figures['minutes']:g} minutes"
    )
