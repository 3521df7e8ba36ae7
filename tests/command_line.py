"""What tests of the command line share."""

import json

GOOD = "user_id,item_id,event_type,timestamp\nu1,i1,view,1767225600\n"
"""A file of one event."""


def failed(outcome, code):
    """Return the error that a command printed as its only JSON object."""
    assert outcome.exit_code == code, outcome.output
    error = json.loads(outcome.stdout)["error"]
    assert error["exit_code"] == code
    assert error["what"]
    assert error["next"]
    return error
