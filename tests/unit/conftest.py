"""The command line in the test's own process and folder."""

import pytest
from typer.testing import CliRunner

from server.cli.main import app


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run
