"""`make cluster` leaves the checkout as it is, unless its figures shall be kept."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    module = importlib.import_module("cluster")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results" / "cluster.json")
    return module


def test_figures_go_where_git_does_not_look_unless_they_shall_be_kept(cluster: ModuleType, tmp_path: Path) -> None:
    assert "/data/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    for whole in (False, True):
        assert cluster.write({"views": 300}, whole=whole, keep=False) == tmp_path / "data" / "cluster.json"
    assert not cluster.RESULTS.exists()
    kept = cluster.write({"views": 1_000}, whole=True, keep=True)
    assert json.loads(kept.read_text(encoding="utf-8")) == {"year": {"views": 1_000}}
    assert set(json.loads((tmp_path / "data" / "cluster.json").read_text(encoding="utf-8"))) == {"month", "year"}
