"""`shopkeeper count`: shards read from a real ClickHouse by two processes make the lists of one, byte by byte."""

import json
import random
import uuid
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from server.adapters.sqlite_log import open_log
from server.bundle_check import check
from server.cli.main import app
from server.ports import NewRecord
from server.settings import ClickHouseSettings, Settings
from server.tables import prepare_store, request_export
from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event, EventItem, EventType
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.record_pb2 import ItemChange, RecordKind
from tests.bundle_maker import BundleMaker
from tests.servers import free_ports
from tests.table_shop import item, profile
from trainers.bundle_models import fitted_models
from trainers.dataset import read_export

KINDS = (EventType.EVENT_TYPE_VIEW, EventType.EVENT_TYPE_CLICK, EventType.EVENT_TYPE_PURCHASE)


def records() -> list[NewRecord]:
    """Return the log of a shop: items in and out of the catalogue, a visitor who denies training, searches."""
    chance = random.Random(5)
    made = [item(ItemChange(item=Item(item_id=f"i{number:02}"), deleted=number == 4)) for number in range(20)]
    made += [profile("v03", training=False)]
    for number in range(1_500):
        visitor = f"v{chance.randrange(60):02}"
        lines = [EventItem(item_id=f"i{int(chance.triangular(0, 30, 3)):02}") for _ in range(chance.randrange(5))]
        event = Event(
            event_id=f"e{number}",
            event_type=chance.choice(KINDS) if lines else EventType.EVENT_TYPE_SEARCH,
            context=Context(visitor_id=visitor, query="" if lines else "cheese"),
            items=lines,
        )
        event.event_time.FromMilliseconds(1_700_000_000_000 + number // 2 * 60_000)
        payload = event.SerializeToString()
        made.append(NewRecord(RecordKind.RECORD_KIND_EVENT, visitor, event.event_id, payload))
    return made


@pytest.fixture
def settings(clickhouse_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    server = ClickHouseSettings(server=clickhouse_address, database=f"test_{uuid.uuid4().hex}")
    for name in ("server", "database"):
        monkeypatch.setenv(f"SHOPKEEPER__CLICKHOUSE__{name.upper()}", getattr(server, name))
    settings = Settings(data_dir=tmp_path / "data", clickhouse=server)
    log = open_log(settings)
    list(log.import_records([records()], 1_000))
    log.close()
    return settings


def test_two_processes_count_what_one_does_byte_by_byte(settings: Settings, tmp_path: Path) -> None:
    prepare_store(settings).close()
    options = ["--shards", "3", "--processes", "2", "--ranker", "one", "--data-dir", str(settings.data_dir), "--json"]
    BundleMaker(settings.bundle_dir).make("one")
    outcome = CliRunner().invoke(app, ["count", *options])
    assert outcome.exit_code == 0, outcome.output
    said = json.loads(outcome.stdout)
    bundle = settings.bundle_dir / "incoming" / said["version"]

    dataset = read_export(request_export(settings, 60)).dataset
    models = {name: model for model in fitted_models(dataset) for name in model.tensors()}
    wanted = {"also_viewed", "also_bought", "bought_together", "next_basket", "user_to_user"}
    assert said["files"] == sorted(f"{name}.safetensors" for name in wanted)
    for name in said["files"]:
        models[name].export(tmp_path / "alone")
        assert (bundle / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name
        assert len(load_file(bundle / name)["scores"]) > 100
    ids = {
        name: load_file(bundle / f"{name}.safetensors")["bytes"].tobytes().decode() for name in ("items", "visitors")
    }
    assert ids == {"items": "".join(dataset.items), "visitors": "".join(dataset.visitors)}
    assert "v03" not in dataset.visitors
    assert dataset.items[-1] > "i20", "items that the catalogue lacks come last"

    manifest = json.loads((bundle / "manifest.json").read_text())
    facts = dataset.facts()
    assert (manifest["event_count"], manifest["visitor_count"]) == (facts.event_count, facts.visitor_count)
    check(bundle)


def test_an_absent_server_ends_with_4(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOPKEEPER__CLICKHOUSE__SERVER", f"127.0.0.1:{free_ports(1)[0]}")
    outcome = CliRunner().invoke(app, ["count", "--data-dir", str(settings.data_dir), "--json"])
    assert outcome.exit_code == 4
    assert "does not answer" in outcome.stdout


def test_tables_of_one_process_are_not_counted_in_shards(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOPKEEPER__CLICKHOUSE__SERVER")
    outcome = CliRunner().invoke(app, ["count", "--data-dir", str(settings.data_dir), "--json"])
    assert outcome.exit_code == 3
    assert "tables in chDB have one reader; set clickhouse.server" in outcome.stdout
