"""No new id has a control character; records of older logs that have some are applied as they are."""

import json
from pathlib import Path

import pytest

from core_rs import Engine
from server.adapters.memory_log import MemoryLog
from server.importing.files import Options, import_file
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import ItemChange
from tests.table_shop import event, item

EVENT = {"user_id": "u", "item_id": "i", "event_type": "view", "timestamp": "1767225600"}


@pytest.mark.parametrize(
    ("kind", "row", "field"),
    [
        ("events", EVENT | {"user_id": "a\nb"}, "user_id"),
        ("events", EVENT | {"item_id": "a\0b"}, "item_id"),
        ("items", {"item_id": "a\nb", "title": "Brie"}, "item_id"),
        ("profiles", {"user_id": "a\x7fb", "trait.size": "M"}, "user_id"),
    ],
)
def test_row_with_one_in_its_id_is_refused(tmp_path: Path, kind: str, row: dict[str, str], field: str) -> None:
    good = {name: text.replace("\n", "").replace("\0", "").replace("\x7f", "") for name, text in row.items()}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, good)))
    report = import_file(MemoryLog(), path, kind, Options(now_ms=1_770_000_000_000, rejected_dir=tmp_path / "rejected"))
    assert (report.accepted, report.rejected) == (1, 1)
    (fault,) = map(json.loads, Path(report.rejected_file or "").read_text().splitlines())
    assert fault["field"] == field
    assert "control character" in fault["reason"]


def test_records_of_older_logs_are_applied() -> None:
    engine = Engine()
    records = [
        event("e\n1", "a\0", visitor_id="v\t"),
        item(ItemChange(item=Item(item_id="a\0", title="Brie"))),
    ]
    engine.apply([(offset, one.kind, 1_000, one.payload) for offset, one in enumerate(records, 1)])
    assert engine.stats()["events"] == 1
    assert Item.FromString(engine.item("a\0")).title == "Brie"
    assert engine.profile("v\t")
