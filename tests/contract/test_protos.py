"""The contract: style, compatibility with the last release, and stubs that are what the generator writes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BIN = Path(sys.executable).parent


def run(*command: str) -> str:
    """Return the output of a command that must succeed."""
    done = subprocess.run(command, cwd=PROTO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_contract_passes_the_style_of_buf():
    run(str(BIN / "buf"), "lint")


def test_nothing_that_was_released_breaks():
    run(str(BIN / "buf"), "breaking", "--against", "released.binpb")


def test_a_breaking_change_would_be_found(tmp_path):
    for path in PROTO.rglob("*"):
        if path.suffix in {".proto", ".yaml", ".binpb"}:
            target = tmp_path / path.relative_to(PROTO)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    common = tmp_path / "shopkeeper/v1/common.proto"
    common.write_text(common.read_text().replace("string currency_code = 1;", "string currency_code = 9;"))
    done = subprocess.run(
        [BIN / "buf", "breaking", "--against", "released.binpb"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"currency_code" in done.stdout + done.stderr


def test_committed_stubs_are_what_the_generator_writes(tmp_path):
    tools = ["--with", "grpcio-tools==1.75.1", "--with", "mypy-protobuf==5.1.0"]
    uv = str(BIN / "uv")
    run(uv, "run", "--quiet", "--no-project", *tools, "python", str(PROTO / "generate.py"), str(tmp_path))
    fresh = {path.name: path.read_text() for path in (tmp_path / "shopkeeper/v1").iterdir()}
    committed = {
        path.name: path.read_text()
        for path in (ROOT / "shopkeeper/v1").glob("*_pb2*")
        if path.suffix in {".py", ".pyi"}
    }
    assert fresh.keys() == committed.keys(), "run `make protos`"
    assert [name for name in fresh if fresh[name] != committed[name]] == [], "run `make protos`"
