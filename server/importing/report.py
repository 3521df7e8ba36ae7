"""What an import tells: counts, notes and the rows that were refused."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TextIO

import polars as pl


class ImportFault(Exception):  # noqa: N818 - a fault of the file, not of the program
    """A file cannot be imported at all.

    Parameters
    ----------
    what : str
        What is wrong, with the file's name.
    remedy : str
        What to do about it.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True)
class Rejection:
    """One refused row.

    Attributes
    ----------
    row : int
        Line of a text file, counted from 1 with the header; row of a Parquet file, counted from 1.
    field : str
        Column at fault; empty when the row as a whole is.
    reason : str
        What is wrong and how to mend it.
    value : str
        What the row had there.
    """

    row: int
    field: str
    reason: str
    value: str


@dataclass
class ImportReport:
    """Counts of one import; all zero at first."""

    source: str
    kind: str
    dry_run: bool = False
    rows: int = 0
    rejected: int = 0
    records: int = 0
    stored: int = 0
    duplicates: int = 0
    conflicts: int = 0
    joined: int = 0
    unjoined: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    rejected_file: str = ""

    @property
    def accepted(self) -> int:
        """Rows that were taken."""
        return self.rows - self.rejected

    def cover(self, times_ms: pl.Series) -> None:
        """Widen the span of time to these moments, Unix milliseconds."""
        first, last = int(times_ms.min()), int(times_ms.max())  # type: ignore[arg-type]  # whole numbers
        self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
        self.last_ms = last if self.last_ms is None else max(self.last_ms, last)

    def as_json(self) -> dict[str, object]:
        """Return the report as one JSON object."""
        return {**vars(self), "accepted": self.accepted, "reasons": dict(self.reasons.most_common())}


class RejectedRows:
    """Keeps refused rows in a file of JSON lines; the file appears with the first of them.

    Parameters
    ----------
    path : Path
        File to write; one left by an earlier import is replaced.
    report : ImportReport
        Counts them.
    """

    def __init__(self, path: Path, report: ImportReport) -> None:
        self._path = path
        self.report = report
        self._file: TextIO | None = None
        path.unlink(missing_ok=True)

    def add(self, rejection: Rejection) -> None:
        """Keep one refused row and count its reason."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
            self.report.rejected_file = str(self._path)
        self._file.write(json.dumps(vars(rejection), ensure_ascii=True) + "\n")
        self.report.rejected += 1
        self.report.reasons[f"{rejection.field}: {rejection.reason}" if rejection.field else rejection.reason] += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()
