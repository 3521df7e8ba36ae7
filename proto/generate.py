"""Write the Python stubs of `proto/` into `shopkeeper/v1`; run it by `make protos`."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main(target: Path) -> None:
    """Generate messages, services and types below `target`."""
    files = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("shopkeeper/v1/*.proto"))
    flags = [f"--{plugin}_out={target}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", *flags, *files], check=True, cwd=ROOT)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT.parent)
