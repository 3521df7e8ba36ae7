"""The bundles that trainers make: read, checked in a child process, kept."""

import asyncio
import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from server.errors import ServiceError, out_of_range

MANIFEST_FILE: Final = "manifest.json"

_CHECK_S: Final = 180.0
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+\.(onnx|safetensors)$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Metric(BaseModel):
    """One measured quality with its interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Manifest(BaseModel):
    """Card of a bundle: what it was made of, what it predicts, the hash of each of its files."""

    model_config = ConfigDict(frozen=True)

    version: str
    schema_hash: str
    features: list[str]
    actions: list[str]
    create_ms: int
    train_start_ms: int
    train_end_ms: int
    event_count: int
    time_zone: str = "UTC"
    ranker: str = ""
    item_vectors: str = ""
    files: dict[FileName, Sha256]
    metrics: dict[str, Metric] = {}


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a bundle folder.

    Raises
    ------
    OSError : there is none
    ValueError : it is no manifest, or names another version than its folder
    """
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{MANIFEST_FILE} {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if manifest.version != folder.name:
        raise ValueError(f"manifest.json says version {manifest.version!r}, its folder {folder.name!r}; rename one")
    return manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raise ValueError when the files of a bundle are not those of its manifest."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise ValueError(f"{path.name} is no regular file; a bundle is a flat folder of files")
        if path.name != MANIFEST_FILE and path.name not in manifest.files:
            raise ValueError(f"{path.name} is not in the manifest; list it or remove it")
    for name, digest in manifest.files.items():
        check_file(folder / name, digest)


def check_file(path: Path, digest: str) -> None:
    """Raise ValueError when a file is missing or does not have the SHA-256 `digest`."""
    if not path.is_file():
        raise ValueError(f"{path.name} is in the manifest and not in the folder; copy the whole bundle")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{path.name} does not have the sha256 of the manifest; copy it or export it again")


def time_zone_fault(manifest: Manifest, time_zone: str) -> str:
    """Return why a bundle does not serve where the setting `time_zone` is so; empty if it does."""
    if manifest.time_zone == time_zone:
        return ""
    theirs = manifest.time_zone
    return (
        f"it was trained for the time zone {theirs} and the setting `time_zone` is {time_zone}; "
        f"set `time_zone` to {theirs} and restart, or train again"
    )


class BundleStore:
    """Bundles of one server: `incoming/` holds what trainers offer, the folder itself what passed the check.

    Parameters
    ----------
    folder : the folder `bundles`; made where it is missing
    time_zone : of the shop; bundles that were trained for another do not serve
    """

    def __init__(self, folder: Path, time_zone: str) -> None:
        self._folder = folder
        self._time_zone = time_zone
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def folder_of(self, version: str) -> Path:
        """Return the folder of a published bundle.

        Raises
        ------
        ServiceError : FIELD_REQUIRED, FIELD_OUT_OF_RANGE, MODEL_NOT_FOUND
        """
        folder = self._folder / _checked(version)
        if not (folder / MANIFEST_FILE).is_file():
            text = f"`version` names `{version}`, which is not published; publish it first"
            raise ServiceError("MODEL_NOT_FOUND", text, field="version")
        return folder

    def verified_file(self, version: str, name: str) -> Path | None:
        """Return a file of a published bundle that is still the one of the manifest; None if that does not list it.

        Raises
        ------
        ServiceError : as `folder_of`, and CHECKSUM_MISMATCH
        """
        path = self.folder_of(version) / name
        digest = self.manifest(version).files.get(name)
        if digest is None:
            return None
        with _damage_translated(version):
            check_file(path, digest)
        return path

    def manifest(self, version: str) -> Manifest:
        """Return the manifest of a published bundle; errors as `verified_file`."""
        folder = self.folder_of(version)
        with _damage_translated(version):
            return read_manifest(folder)

    def manifest_to_serve(self, version: str) -> Manifest:
        """Return the manifest of a published bundle that fits the settings.

        Raises
        ------
        ServiceError : as `manifest`, and BUNDLE_REJECTED
        """
        manifest = self.manifest(version)
        if fault := time_zone_fault(manifest, self._time_zone):
            raise _rejected(version, fault)
        return manifest

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all published bundles, newest first; a damaged one is left out."""
        found = []
        for path in self._folder.glob(f"*/{MANIFEST_FILE}"):
            with contextlib.suppress(OSError, ValueError):
                found.append(read_manifest(path.parent))
        return sorted(found, key=lambda manifest: (-manifest.create_ms, manifest.version))

    async def publish(self, version: str) -> Manifest:
        """Return the manifest of an incoming bundle after it passed the check and was moved to the published ones.

        A repeat returns the bundle that is already published.

        Raises
        ------
        ServiceError : FIELD_REQUIRED, FIELD_OUT_OF_RANGE, BUNDLE_REJECTED with the check that failed
        """
        source, target = self._incoming / _checked(version), self._folder / version
        if target.exists() and not source.exists():
            return self.manifest(version)
        if target.exists():
            raise _rejected(version, "a bundle of this version is published; give the new one another version")
        if not source.is_dir() or source.is_symlink():
            raise _rejected(version, "there is no such folder in bundles/incoming; write the bundle there")
        if fault := await _fault_of(source) or time_zone_fault(read_manifest(source), self._time_zone):
            raise _rejected(version, fault)
        source.rename(target)
        return read_manifest(target)


@contextlib.contextmanager
def _damage_translated(version: str) -> Iterator[None]:
    """Turn what is wrong with a bundle that was good once into a ServiceError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ServiceError("CHECKSUM_MISMATCH", f"bundle `{version}`: {error}", field="version") from error


def _checked(version: str) -> str:
    if not version:
        raise ServiceError("FIELD_REQUIRED", "`version` is required; set it", field="version")
    if not _VERSION.fullmatch(version) or version == "incoming":
        raise out_of_range(
            "version", "must be the name of a bundle's folder: 1 to 64 letters, digits, `.`, `_` and `-`"
        )
    return version


def _rejected(version: str, fault: str) -> ServiceError:
    return ServiceError("BUNDLE_REJECTED", f"bundle `{version}`: {fault}", field="version")


async def _fault_of(folder: Path) -> str:
    """Return what the check in a child process found; empty if all is well. The child may crash, hang or eat memory.

    One that was killed by a signal is run once more: files that harm it do so again, a machine in distress does not.
    """
    status, said = await _outcome(folder)
    if status < 0:
        status, said = await _outcome(folder)
    if status == 0:
        return ""
    return said or f"the check ended with status {status}; its files harm"


async def _outcome(folder: Path) -> tuple[int, str]:
    """Return the status of a check, and what it printed."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.bundle_check", str(folder)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(_CHECK_S):
            output, _ = await child.communicate()
    except TimeoutError:
        return 1, f"the check took longer than {_CHECK_S:.0f} s; make the bundle smaller"
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, output.decode(errors="replace").strip()
