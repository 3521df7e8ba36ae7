"""The demo's shop on disk: the log as of the split, the export for trainers, and what was done already."""

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

import core_rs
from server import defaults, migrations
from server.adapters.sqlite_log import open_log
from server.defaults import add_placements
from server.importing import complete_journey, writing
from server.importing.complete_journey import SPLIT, data_files, held_out_lines, import_complete_journey
from server.importing.report import ImportFault
from server.lockfile import FileLock, LockHeldError
from server.ports import LogRecord
from server.settings import Settings
from server.tables import request_export
from shopkeeper.v1.record_pb2 import RecordKind

HELD_OUT_FILE = "held_out.parquet"
"""Event lines from the split on, beside `events.parquet` and with its columns: what the models must foresee."""

_CHANGES = frozenset(RecordKind.values()) - {RecordKind.RECORD_KIND_DECISION, RecordKind.RECORD_KIND_ACTIVATION}
_STATE_FILE = "demo.json"
_EXPORT_S = 600.0


@dataclass
class State:
    """What earlier runs of the demo left in a folder.

    Attributes
    ----------
    import_hash, train_hash : str
        Inputs of what was done; empty before.
    import_offset : int
        Last record of the import.
    export : str
        Folder of the export.
    trained : dict[str, Any]
        What the trainers answered.
    """

    import_hash: str = ""
    import_offset: int = 0
    train_hash: str = ""
    export: str = ""
    trained: dict[str, Any] = field(default_factory=dict)


class DemoShop:
    """The folder of the demo.

    Parameters
    ----------
    settings : Settings
        Whose data folder is the demo's own.

    Raises
    ------
    ImportFault
        When what is there is not the demo's, or a server runs on it.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._path = settings.data_dir / _STATE_FILE
        self.state = self._load()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._save()
        try:
            FileLock(settings.store_dir.with_suffix(".lock")).release()
        except LockHeldError as held:
            raise ImportFault(
                f"A server runs on {settings.data_dir} (process {held.owner}).",
                "Stop it, or name another `--data-dir`.",
            ) from held

    @property
    def export(self) -> Path:
        """Folder of the export."""
        return Path(self.state.export)

    def import_shop(self) -> bool:
        """Bring the data up to the split into the log; return whether there was anything to do.

        A shop that was changed since, by events or documents, begins anew: its measures would no longer compare.
        """
        tables = sorted(Path(migrations.__path__[0]).glob("*.sql"))
        wanted = _hash(
            [*data_files(), *tables, *(Path(module.__file__ or "") for module in (complete_journey, writing, defaults))]
        )
        if self.state.import_hash == wanted and not self._changed():
            return False
        self.state = State()
        self._save()
        self._clear()
        with closing(open_log(self.settings)) as log:
            add_placements(log, round(SPLIT.timestamp() * 1000))
            import_complete_journey(log, until=SPLIT)
            self.state.import_offset = log.last_offset()
        self.state.import_hash = wanted
        self._save()
        return True

    def export_shop(self) -> bool:
        """Fill the tables and write the export with the held-out lines; return whether there was anything to do."""
        if self.state.export and (self.export / HELD_OUT_FILE).exists():
            return False
        folder = request_export(self.settings, _EXPORT_S)
        columns = pl.read_parquet_schema(folder / "events.parquet")
        held_out_lines(SPLIT, columns).write_parquet(folder / HELD_OUT_FILE)
        self.state.export = str(folder)
        self._save()
        return True

    def needs_training(self, seed: int) -> bool:
        """Return whether the bundle of these inputs is still to be made."""
        return self.state.train_hash != self._train_hash(seed)

    def keep_training(self, seed: int, trained: dict[str, Any]) -> None:
        """Remember what the trainers answered for the present inputs."""
        self.state.trained = trained
        self.state.train_hash = self._train_hash(seed)
        self._save()

    def _load(self) -> State:
        """Return what an earlier run kept; raise where the folder holds anything that is not the demo's."""
        try:
            if self._path.exists():
                return State(**json.loads(self._path.read_text(encoding="utf-8")))
            foreign = self.settings.data_dir.exists() and any(self.settings.data_dir.iterdir())
        except (ValueError, TypeError, NotADirectoryError):
            foreign = True
        if foreign:
            raise ImportFault(
                f"{self.settings.data_dir} is not empty and not the demo's.", "Name another folder with `--data-dir`."
            )
        return State()

    def _clear(self) -> None:
        """Remove what a shop keeps in its folder, and nothing else."""
        settings = self.settings
        folder = settings.data_dir
        kept = (
            settings.snapshot_dir,
            settings.bundle_dir,
            settings.store_dir,
            settings.export_dir,
            settings.reject_dir,
        )
        for path in (*kept, *folder.glob(f"{settings.log_path.name}*"), folder / "token.key"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _changed(self) -> bool:
        after = self.state.import_offset
        with closing(open_log(self.settings)) as log:
            while records := log.read(after, writing.GROUP, bare_kinds=RecordKind.values()):
                after = records[-1].offset
                if any(record.kind in _CHANGES and not _is_default(record) for record in records):
                    return True
        return False

    def _train_hash(self, seed: int) -> str:
        spec = importlib.util.find_spec("trainers")
        folders = (spec.submodule_search_locations if spec else None) or []
        sources = [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))]
        return _hash(sources, f"{self.state.import_hash} {core_rs.schema_hash()} {seed}")

    def _save(self) -> None:
        beside = self._path.with_suffix(".part")
        beside.write_text(json.dumps(vars(self.state), indent=2) + "\n", encoding="utf-8")
        beside.replace(self._path)


def _is_default(record: LogRecord) -> bool:
    """Return whether the record is one of the placements that a server writes at its first start."""
    return record.kind == RecordKind.RECORD_KIND_DOCUMENT and bool(record.record_id)


def _hash(files: Iterable[Path], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
