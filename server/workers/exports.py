"""Exports for trainers: a process asks by a file `<name>.want`, the owner of the tables answers by a folder `<name>`.

The folder appears whole, by a rename; `<name>.failed` holds the reason where it could not be made.
"""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from server.ports import EventStore, LogUnavailableError, StoreError, StreamUnavailableError

KEEP_S: Final = 86_400
"""Seconds after which an export is removed, so that what was erased does not live on in it."""

_logger = structlog.get_logger(__name__)


def make_export(drain: Callable[[], object], store: EventStore, folder: Path) -> Path:
    """Return `folder`, filled with all that the tables hold after `drain`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_old(folder.parent)
    drain()
    store.export(folder)
    return folder


def answer_wants(drain: Callable[[], object], store: EventStore, folder: Path) -> None:
    """Make every export that is asked for in `folder`, and remove those that are too old."""
    _remove_old(folder)
    for want in sorted(folder.glob("*.want")):
        try:
            make_export(drain, store, want.with_suffix(""))
        except (StoreError, LogUnavailableError, StreamUnavailableError, OSError) as error:
            _logger.exception("export_failed", name=want.stem)
            want.with_suffix(".failed").write_text(str(error), encoding="utf-8")
        want.unlink(missing_ok=True)


def answer_to(want: Path) -> Path | None:
    """Return the export that `want` asked for; None while it is not there.

    Raises
    ------
    StoreError : it could not be made
    """
    failed = want.with_suffix(".failed")
    if failed.exists():
        reason = failed.read_text(encoding="utf-8")
        failed.unlink()
        raise StoreError(f"the owner of the tables could not export: {reason}")
    folder = want.with_suffix("")
    return folder if folder.is_dir() else None


def _remove_old(folder: Path) -> None:
    for old in folder.glob("*"):
        with suppress(OSError):  # another process may take it away meanwhile
            if time.time() - old.stat().st_mtime > KEEP_S:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
