"""Every reason of the contract has one kind, one status and a line in the documentation."""

import grpc
import pytest
from google.rpc import error_details_pb2

from server import errors
from shopkeeper.v1.error_reason_pb2 import ErrorReason

REASONS = [name.removeprefix("ERROR_REASON_") for name, number in ErrorReason.items() if number]


def test_every_reason_has_a_row():
    assert set(errors.KINDS) == set(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_documented_with_its_status(reason):
    lines = errors.__doc__.splitlines()
    (line,) = [i for i, text in enumerate(lines) if reason in text.replace(",", " ").split()[-4:]]
    while not lines[line].startswith(errors.KINDS[reason].name):
        line -= 1
    assert errors.KINDS[reason].value.name in lines[line]


def test_kinds_have_distinct_statuses():
    assert len({kind.value for kind in errors.Kind}) == len(list(errors.Kind))


def test_a_status_names_reason_field_and_fix():
    error = errors.out_of_range("page_size", "is -1; set 0")
    status = errors.to_status(error, "request-1")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert (info.domain, info.reason, info.metadata["request_id"]) == ("shopkeeper", "FIELD_OUT_OF_RANGE", "request-1")
    assert bad.field_violations[0].field == "page_size"
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_a_reason_outside_the_contract_cannot_be_made():
    with pytest.raises(ValueError, match="ERROR_REASON_NO_SUCH"):
        errors.ServiceError("NO_SUCH", "text")
