"""The document of the features says what the engine computes."""

from pathlib import Path

import core_rs

DOCUMENT = Path(core_rs.__file__).parent / "FEATURES.md"


def test_the_document_has_the_row_of_each_column_in_order() -> None:
    rows = [f"| `{name}` | {group} | {unit} | {meaning} |" for name, group, unit, meaning in core_rs.feature_table()]
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert written == rows, "correct core_rs/FEATURES.md; the rows it has to have:\n" + "\n".join(rows)
