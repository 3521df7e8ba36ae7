"""The table view through the process that owns it.

A process asks by a file `<name>.ask`, the owner answers by `<name>.answer`, a file of Arrow, or by `<name>.failed` with
the reason. Each appears whole, by a rename.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from uuid import uuid4

import pyarrow as pa
import structlog

from server.adapters.sql_store import SqlStore
from server.ports import LogUnavailableError, RowStore, StoreBusyError, StoreError

_POLL_S: Final = 0.02

_logger = structlog.get_logger(__name__)


class AskedStore(SqlStore):
    """`RowStore` whose statements another process runs, one after the other.

    Parameters
    ----------
    folder : where the owner looks for what is asked
    busy : why the tables cannot be opened here; raised where the owner does not answer
    timeout_s : seconds to wait for an answer
    """

    def __init__(self, folder: Path, busy: StoreBusyError, *, timeout_s: float) -> None:
        super().__init__()
        self._folder = folder
        self._busy = busy
        self._timeout_s = timeout_s
        folder.mkdir(parents=True, exist_ok=True)

    def query(self, sql: str, params: Mapping[str, object] | None = None) -> pa.Table:
        """Return the result of `sql`, in which `{name:Type}` stands for a parameter; empty where it has none."""
        return self._answer({"sql": sql, "params": dict(params or {})})

    def insert(self, table: str, rows: pa.Table) -> None:
        """Add rows; a row with a known key replaces the old one."""
        if rows.num_rows:
            self._answer({"insert": table}, rows)

    def close(self) -> None:
        """Do nothing: the tables are the owner's."""

    def write(self, path: Path, select: str) -> None:
        """Refuse: the owner writes files only as exports."""
        raise StoreError(f"{path} cannot be written by asking for `{select}`; ask the owner for an export")

    def _answer(self, wish: Mapping[str, object], rows: pa.Table | None = None) -> pa.Table:
        ask = self._folder / f"{time.time_ns() // 1_000_000}-{uuid4().hex[:8]}.ask"
        deadline = time.monotonic() + self._timeout_s
        try:
            if rows is not None:
                _write_table(ask.with_suffix(".rows"), rows)
            _write_text(ask, json.dumps(wish))
            while (answer := _answer_to(ask)) is None:
                if time.monotonic() > deadline:
                    raise StoreBusyError(f"no answer within {self._timeout_s:g} s; {self._busy}") from self._busy
                time.sleep(_POLL_S)
            return answer
        finally:
            for suffix in (".ask", ".rows", ".answer", ".failed"):
                ask.with_suffix(suffix).unlink(missing_ok=True)


def answer_asks(drain: Callable[[], object], store: RowStore, folder: Path) -> None:
    """Do everything that is asked for in `folder`, after `drain`; what cannot be done is answered with the reason."""
    for ask in sorted(folder.glob("*.ask")):
        try:
            drain()
            _write_table(ask.with_suffix(".answer"), _done(store, ask))
        except (StoreError, LogUnavailableError, OSError, ValueError, KeyError) as error:
            _logger.warning("ask_failed", name=ask.stem, reason=str(error), fix="none: who asked is told")
            _write_text(ask.with_suffix(".failed"), str(error))
        ask.unlink(missing_ok=True)


def _done(store: RowStore, ask: Path) -> pa.Table:
    wish = json.loads(ask.read_text(encoding="utf-8"))
    if table := wish.get("insert"):
        store.insert(table, _read_table(ask.with_suffix(".rows")))
        return pa.table({})
    return store.query(wish["sql"], wish["params"])


def _answer_to(ask: Path) -> pa.Table | None:
    failed, answer = ask.with_suffix(".failed"), ask.with_suffix(".answer")
    if failed.exists():
        raise StoreError(f"the owner of the tables: {failed.read_text(encoding='utf-8')}")
    return _read_table(answer) if answer.exists() else None


def _write_text(path: Path, text: str) -> None:
    part = path.with_suffix(f"{path.suffix}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _write_table(path: Path, table: pa.Table) -> None:
    part = path.with_suffix(f"{path.suffix}.part")
    with pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    part.replace(path)


def _read_table(path: Path) -> pa.Table:
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_file(file) as reader:
        return reader.read_all()
