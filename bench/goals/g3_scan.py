"""G3: scan of all vectors as bytes against a pure read of the same bytes, in Rust (`core_rs/benches/scan.rs`)."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from measure import Comparison, MissingToolError, Row

_ROOT: Final = Path(__file__).parents[2]
_COMMAND: Final = ("cargo", "bench", "--quiet", "--locked", "--target-dir", "target/cargo", "--bench", "scan")


def measure(note: Callable[[str], None]) -> list[Row]:
    """Return a row for each size and set of instructions; the ratio is that of the read to the scan."""
    if shutil.which("cargo") is None:
        raise MissingToolError("cargo is missing; install Rust from rustup.rs")
    note("building")
    done = subprocess.run(_COMMAND, cwd=_ROOT, check=True, capture_output=True, text=True)
    rows = []
    for line in done.stdout.splitlines():
        result = json.loads(line)
        scans, reads = zip(*result["turns_us"], strict=True)
        name = f"G3 {result['items']:,} {result['instructions']}"
        note(f"{name}: {min(scans):,.0f} against {min(reads):,.0f} us")
        compared = Comparison(scans, reads)
        rows.append(compared.row(name, "us", "pure read of the same bytes", higher_is_better=False))
    return rows
