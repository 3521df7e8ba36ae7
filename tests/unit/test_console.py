"""Where no bar can move, every step of the trainers that has ended is a line on standard error, and on no other."""

import re

import pytest
import typer

from trainers import console


def told(capsys: pytest.CaptureFixture[str], *steps: tuple[str, float]) -> list[tuple[float, str]]:
    with console.progress_told() as tell:
        for what, share in steps:
            tell(what, share)
    found = capsys.readouterr()
    assert found.out == ""
    lines = [re.fullmatch(r" *(\d+\.\d) s  (.+)", line) for line in found.err.splitlines()]
    return [(float(line[1]), line[2]) for line in lines if line] if all(lines) else pytest.fail(found.err)


def test_a_step_is_told_when_it_ends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 5.5, 60.0, 61.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    steps = [("read", 0.0), ("learn", 0.1), ("learn", 0.5), ("fit", 0.5), ("fit", 1.0), ("fit", 1.0), ("learn", 0.8)]
    assert told(capsys, *steps, ("measure [all]", 0.0)) == [
        (2.0, "read"), (3.0, "learn"), (0.5, "fit"), (54.5, "learn"), (1.0, "measure [all]")
    ]  # fmt: skip


def test_a_step_that_begins_anew_is_told_twice(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, *[("fit", share) for share in (0.0, 0.5, 1.0, 0.0, 1.0)], *[("ask", 0.9), ("ask", 0.0)])
    assert [what for _, what in found] == ["fit", "fit", "ask", "ask"]


def test_a_step_that_fails_is_not_told_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with console.progress_told() as tell:
            tell("read", 1.0)
            tell("fit", 0.5)
            raise ValueError("no rows")

    with pytest.raises(ValueError, match="no rows"):
        fail()
    assert [line.split("s  ")[1] for line in capsys.readouterr().err.splitlines()] == ["read"]


@pytest.mark.parametrize("json", [True, False])
def test_a_fault_is_told_once(capsys: pytest.CaptureFixture[str], json: bool) -> None:
    with pytest.raises(typer.Exit), console.errors_told(json=json):
        raise ValueError("no rows")
    found = capsys.readouterr()
    assert (found.out, found.err) == (('{"error": "no rows"}\n', "") if json else ("", "no rows\n"))
