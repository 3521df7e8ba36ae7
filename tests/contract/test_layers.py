"""The architecture that no linter reads: what the Rust core may touch, and how long a file may be."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core_rs/src"
TRACKED = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
    cwd=ROOT, capture_output=True, text=True, check=True,
).stdout.split()  # fmt: skip
CODE = [name for name in TRACKED if name.endswith((".py", ".rs")) and not name.startswith("shopkeeper/v1/")]


def rust_files_with(pattern: str) -> set[str]:
    """Return the files of the core whose code, tests aside, matches."""
    found = set()
    for path in CORE.rglob("*.rs"):
        code = path.read_text().split("#[cfg(test)]")[0]
        if re.search(pattern, code):
            found.add(str(path.relative_to(CORE)))
    return found


def test_only_the_binding_knows_python():
    assert {name.split("/")[0] for name in rust_files_with(r"\bpyo3::|\bnumpy::")} == {"py"}


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        (r"SystemTime|Utc::now|Local::now|OffsetDateTime", set()),
        (r"\brand::|getrandom|thread_rng", set()),
        (r"std::env|env::var|std::net|TcpStream|std::process", set()),
        (r"std::fs|\bfs::|File::", {"bundle.rs", "snapshot.rs"}),
    ],
)
def test_the_core_touches_nothing_outside(what, allowed):
    touching = {name for name in rust_files_with(what) if not name.startswith("py/")}
    assert {name.split("/")[0].removesuffix(".rs") + ".rs" for name in touching} <= allowed


def test_no_package_marker_shadows_a_folder():
    assert [name for name in TRACKED if re.fullmatch(r"(proto|tests|bench)/(.*/)?__init__\.py", name)] == []


@pytest.mark.parametrize("name", CODE)
def test_a_file_stays_within_its_budget(name):
    path = ROOT / name
    if path.exists():
        assert len(path.read_text().splitlines()) <= 400
