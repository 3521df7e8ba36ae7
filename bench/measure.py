"""What every goal shares: rows of results, interleaved runs, medians of ratios, the machine."""

import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

_PACKAGES: Final = ("grpcio", "uvloop", "onnxruntime", "numpy", "implicit")


class WrongAnswerError(Exception):
    """What was measured did not do its work; no timing counts then."""


class MissingToolError(Exception):
    """A program that measures is not installed; the text says how to get it."""


@dataclass(frozen=True)
class Row:
    """One result.

    Attributes
    ----------
    name : of the goal, e.g. `G1`; a goal of several numbers adds a word, e.g. `M visitor`
    value, unit : what was measured
    peer, peer_value : what it is compared with, in the same unit; None where it stands alone
    ratio : how many times better than the peer, the median over the runs
    spread : least and greatest ratio of the runs, or value where there is no ratio
    runs : number of runs
    detail : further numbers
    """

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    runs: int = 1
    detail: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Values of two rivals, run by run; one pair was measured within seconds."""

    ours: tuple[float, ...]
    peer: tuple[float, ...]

    def row(self, name: str, unit: str, peer: str, *, higher_is_better: bool = True, **detail: object) -> Row:
        """Return the row with the median of the ratios and their range."""
        ratios = [a / b if higher_is_better else b / a for a, b in zip(self.ours, self.peer, strict=True)]
        return Row(
            name=name,
            value=statistics.median(self.ours),
            unit=unit,
            peer=peer,
            peer_value=statistics.median(self.peer),
            ratio=statistics.median(ratios),
            spread=(min(ratios), max(ratios)),
            runs=len(ratios),
            detail=detail,
        )


def interleave(
    ours: Callable[[], float], peer: Callable[[], float], runs: int, note: Callable[[str], None]
) -> Comparison:
    """Return the values of `runs` turns of ours and the peer, one after the other, so that noise meets both."""
    pairs = []
    for run in range(1, runs + 1):
        pairs.append((ours(), peer()))
        note(f"run {run}/{runs}: {pairs[-1][0]:,.4g} against {pairs[-1][1]:,.4g}")
    mine, theirs = zip(*pairs, strict=True)
    return Comparison(mine, theirs)


def fastest(call: Callable[[Any], object], questions: Iterator[Any], calls: int = 20) -> Callable[[], float]:
    """Return a turn: the microseconds of the fastest of some calls, the one that no other process broke into."""

    def turn() -> float:
        times = []
        for question in itertools.islice(questions, calls):
            started = time.perf_counter()
            call(question)
            times.append(time.perf_counter() - started)
        return min(times) * 1e6

    return turn


def turns(
    rivals: Mapping[str, Callable[[], float]], runs: int, note: Callable[[str], None]
) -> dict[str, tuple[float, ...]]:
    """Return the values of several rivals by name, each turn one after the other."""
    values: dict[str, list[float]] = {name: [] for name in rivals}
    for run in range(1, runs + 1):
        for name, rival in rivals.items():
            values[name].append(rival())
        note(f"run {run}/{runs}: " + ", ".join(f"{name} {found[-1]:,.4g}" for name, found in values.items()))
    return {name: tuple(found) for name, found in values.items()}


def quantile(values: list[float], share: float) -> float:
    """Return the value below which `share` of the values lie; NaN without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def require(fact: bool, text: str) -> None:
    """Raise WrongAnswerError with `text` unless `fact` holds."""
    if not fact:
        raise WrongAnswerError(text)


def machine() -> str:
    """Return processor, cores, memory, system and the versions that matter."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return (
        f"{cpu or platform.machine()}, {os.cpu_count()} CPUs, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, CPython {platform.python_version()}, {packages}"
    )


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []
