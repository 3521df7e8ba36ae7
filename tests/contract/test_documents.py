"""Documents: links lead somewhere, tables are whole, and the figures are those that were kept."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("bench/*.md")])

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


@pytest.fixture
def quality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module("quality")


def anchors(document: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@documents
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@documents
def test_every_table_has_a_head_and_even_rows(document):
    for block in re.findall(r"(?:^\|.*\n)+", document.read_text(encoding="utf-8"), re.MULTILINE):
        head, rule, *rows = block.splitlines()
        assert re.fullmatch(r"[|\-]+", rule), head
        assert {line.count(" | ") for line in rows} <= {head.count("|") - 2}, head


def test_the_tables_of_quality_are_those_that_are_kept(quality, capsys):
    quality.main(tables=True)
    page = (ROOT / "bench" / "QUALITY.md").read_text(encoding="utf-8")
    for table in re.split(r"^\n", capsys.readouterr().out, flags=re.MULTILINE):
        assert table in page


def test_the_sampling_error_of_a_recall_is_binomial(quality):
    assert quality.sampling_error(0.3559, 767) == pytest.approx(0.0339, abs=1e-4)
