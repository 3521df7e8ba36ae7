"""The numbered SQL files of `server/migrations`: one dialect, ClickHouse 24.8 and newer."""

import hashlib
import re
from collections.abc import Iterator
from importlib import resources
from typing import Final, NamedTuple

FLOOR: Final = (24, 8)
"""Oldest ClickHouse that runs them."""

_TOKEN: Final = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`|\$(\w*)\$.*?\$\2\$)"""
    r"""|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<end>;)|(?P<rest>.)""",
    re.DOTALL,
)


class Migration(NamedTuple):
    """One file."""

    name: str
    checksum: str
    statements: list[str]


def migrations() -> list[Migration]:
    """Return all migrations in the order of their numbers."""
    files = (file for file in resources.files("server.migrations").iterdir() if file.name.endswith(".sql"))
    texts = {file.name.removesuffix(".sql"): file.read_text(encoding="utf-8") for file in files}
    return [
        Migration(name, hashlib.sha256(text.encode()).hexdigest(), list(split_statements(text)))
        for name, text in sorted(texts.items())
    ]


def split_statements(sql: str) -> Iterator[str]:
    """Yield the statements of `sql` without comments; a `;` in quotes, comments or heredocs ends none."""
    statement = ""
    for token in _TOKEN.finditer(sql):
        if token["end"]:
            if statement.strip():
                yield statement.strip()
            statement = ""
        else:
            statement += " " if token["comment"] else token.group()
    if statement.strip():
        yield statement.strip()
