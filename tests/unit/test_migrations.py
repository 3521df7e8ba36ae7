import pytest

from server.adapters.migrations import migrations, split_statements


@pytest.mark.parametrize(
    ("sql", "statements"),
    [
        ("", []),
        (" ;; ", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1; SELECT 2;\n", ["SELECT 1", "SELECT 2"]),
        ("SELECT ';', 'it''s;', 'a\\';b'; SELECT 2", ["SELECT ';', 'it''s;', 'a\\';b'", "SELECT 2"]),
        ('SELECT ";" FROM `a;b`; SELECT 2', ['SELECT ";" FROM `a;b`', "SELECT 2"]),
        ("SELECT 1 -- one; of\n; SELECT /* ; '*/ 2", ["SELECT 1", "SELECT   2"]),
        ("-- it's only a comment", []),
        ("SELECT $$a;'b$$; SELECT $x$;$$;$x$", ["SELECT $$a;'b$$", "SELECT $x$;$$;$x$"]),
    ],
)
def test_statements_end_at_semicolons_outside_quotes_and_comments(sql: str, statements: list[str]) -> None:
    assert list(split_statements(sql)) == statements


def test_migrations_are_numbered_without_gap_and_hold_one_statement() -> None:
    names = [migration.name for migration in migrations()]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    assert all(len(migration.statements) == 1 for migration in migrations())


def test_migrations_can_be_repeated_after_a_kill() -> None:
    texts = [statement for migration in migrations() for statement in migration.statements]
    assert all("IF NOT EXISTS" in text for text in texts if "CREATE TABLE" in text)
