"""What tests of the command line read from a command that failed."""

import json


def failed(outcome, code):
    """Return the error that a command printed as its only JSON object."""
    assert outcome.exit_code == code, outcome.output
    error = json.loads(outcome.stdout)["error"]
    assert error["exit_code"] == code
    assert error["what"]
    assert error["next"]
    return error
