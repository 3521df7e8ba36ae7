"""Options of the next-basket question: what a command asks, and that the demo asks its own question by them."""

import pytest
import typer
from typer.testing import CliRunner

from server.cli import demo, main
from server.cli import evaluate as served_by
from trainers.__main__ import app
from trainers.protocols import ANY_SHOP, NextBasketQuestion
from trainers.question_options import asks

DEMO = NextBasketQuestion(("FUEL", "COUPON", "MISCELLANEOUS"), ("COUPON/MISC ITEMS",), 10, 5, 3)


@pytest.fixture
def asked(monkeypatch) -> list[NextBasketQuestion]:
    found: list[NextBasketQuestion] = []
    one = typer.Typer()

    @one.command()
    @asks
    def command(*, question: NextBasketQuestion) -> None:
        """Ask."""
        found.append(question)

    def run(arguments):
        ran = CliRunner().invoke(one, [text for text in arguments if text not in {"evaluate", "--json"}])
        assert ran.exit_code == 0, ran.output
        return {"rows": []}

    monkeypatch.setattr(served_by, "run_trainers", lambda arguments: run([arguments[0], *arguments[3:]]))
    run(())
    run(demo._QUESTION)
    return found


def test_a_question_without_options_is_of_any_shop_and_the_demo_names_its_own(asked):
    assert asked == [ANY_SHOP, DEMO]


def test_shopkeeper_evaluate_passes_the_question_on(asked, tmp_path):
    ran = CliRunner().invoke(main.app, ["evaluate", "--export", str(tmp_path), *demo._QUESTION, "--json"])
    assert ran.exit_code == 0, ran.output
    assert asked[2] == DEMO


def test_help_speaks_of_any_shop():
    for command in (["train"], ["evaluate"], ["ablate"], ["served"]):
        text = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"}).stdout
        assert "--min-buyers" in text
        assert "--question" not in text
    text = CliRunner().invoke(main.app, ["evaluate", "--help"], env={"COLUMNS": "200"}).stdout
    assert "--without-subcategory" in text
    assert not {"demo", "complete-journey"} & set(text.split())
