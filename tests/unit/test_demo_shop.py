"""The demo's folder: it takes only a folder of its own, and removes only what is its own."""

import pytest

from server.demo import shop as module
from server.demo.shop import DemoShop
from server.importing.report import ImportFault
from server.settings import Settings


@pytest.mark.parametrize(("name", "content"), [("thesis.txt", "mine"), ("demo.json", "[1]"), ("demo.json", '{"a": 1}')])
def test_a_folder_with_other_things_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ImportFault, match=r"not the demo's.*--data-dir"):
        DemoShop(Settings(data_dir=tmp_path))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, content)]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "data").write_text("mine")
    with pytest.raises(ImportFault, match="not the demo's"):
        DemoShop(Settings(data_dir=tmp_path / "data"))


def test_a_new_import_removes_what_a_shop_keeps_and_nothing_else(tmp_path, monkeypatch):
    for name in ("data_files", "import_complete_journey"):
        monkeypatch.setattr(module, name, lambda *_, **__: [])
    folder = tmp_path / "demo"
    DemoShop(Settings(data_dir=folder))
    for name in ("snapshots", "store", "storefront"):
        (folder / name).mkdir()
        (folder / name / "a").touch()
    for name in ("log.sqlite", "log.sqlite-wal", "token.key", "notes.txt"):
        (folder / name).touch()
    shop = DemoShop(Settings(data_dir=folder))
    assert shop.import_shop()
    kept = {path.name for path in folder.iterdir()}
    assert kept == {"demo.json", "log.sqlite", "log.lock", "store.lock", "notes.txt", "storefront"}
    assert not shop.import_shop()
