"""What fitting costs: seconds and peak memory of the process."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass
class Cost:
    """Seconds on the clock, and the most memory that the process held meanwhile, MiB."""

    seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def counted() -> Iterator[Cost]:
    """Give the cost of a block, known at its end.

    Where the system cannot forget an earlier peak (not Linux), that of the whole process so far is given.
    """
    forgets = _forget_peak()
    cost = Cost()
    start = time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - start
    cost.peak_mib = _peak_kib(forgets) / 1024


def _forget_peak() -> bool:
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _peak_kib(forgets: bool) -> int:
    if forgets:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
