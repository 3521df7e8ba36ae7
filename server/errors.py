"""Every fault a caller can see: reason, who has to act, gRPC status.

=================== ============== =================== ==========================================================
kind                who acts       status              reasons
=================== ============== =================== ==========================================================
INVALID_REQUEST     caller         INVALID_ARGUMENT    REQUEST_MALFORMED, FIELD_REQUIRED, FIELD_OUT_OF_RANGE,
                                                       PAGE_TOKEN_INVALID
CONFLICT            caller         ALREADY_EXISTS      EVENT_ID_CONFLICT
NOT_FOUND           caller         NOT_FOUND           PLACEMENT_NOT_FOUND, CONTROL_NOT_FOUND, ITEM_NOT_FOUND,
                                                       PROFILE_NOT_FOUND, MODEL_NOT_FOUND
CHANGED             caller         ABORTED             ETAG_MISMATCH
WRONG_STATE         trainer        FAILED_PRECONDITION BUNDLE_REJECTED, NO_PREVIOUS_MODEL, TRIAL_REFUSED
OVERLOADED          caller, later  RESOURCE_EXHAUSTED  OVERLOADED
UNAVAILABLE         operator       UNAVAILABLE         LOG_UNAVAILABLE
CORRUPT             operator       DATA_LOSS           CHECKSUM_MISMATCH
BUG                 we             INTERNAL            INTERNAL
=================== ============== =================== ==========================================================

A status carries `google.rpc.ErrorInfo` (domain `shopkeeper`, the reason, the request id) and, where a field is at
fault, `google.rpc.BadRequest`. Clients switch on the reason, never on the text.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from core_rs import EngineError
from shopkeeper.v1.error_reason_pb2 import ErrorReason

DOMAIN: Final = "shopkeeper"
MAX_ID_BYTES: Final = 256

_MAX_TEXT: Final = 1_000


class Kind(Enum):
    """Who has to act on a fault, as the gRPC status that says so."""

    INVALID_REQUEST = grpc.StatusCode.INVALID_ARGUMENT
    CONFLICT = grpc.StatusCode.ALREADY_EXISTS
    NOT_FOUND = grpc.StatusCode.NOT_FOUND
    CHANGED = grpc.StatusCode.ABORTED
    WRONG_STATE = grpc.StatusCode.FAILED_PRECONDITION
    OVERLOADED = grpc.StatusCode.RESOURCE_EXHAUSTED
    UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
    CORRUPT = grpc.StatusCode.DATA_LOSS
    BUG = grpc.StatusCode.INTERNAL


KINDS: Final[Mapping[str, Kind]] = {
    "REQUEST_MALFORMED": Kind.INVALID_REQUEST,
    "FIELD_REQUIRED": Kind.INVALID_REQUEST,
    "FIELD_OUT_OF_RANGE": Kind.INVALID_REQUEST,
    "PAGE_TOKEN_INVALID": Kind.INVALID_REQUEST,
    "EVENT_ID_CONFLICT": Kind.CONFLICT,
    "PLACEMENT_NOT_FOUND": Kind.NOT_FOUND,
    "CONTROL_NOT_FOUND": Kind.NOT_FOUND,
    "ITEM_NOT_FOUND": Kind.NOT_FOUND,
    "PROFILE_NOT_FOUND": Kind.NOT_FOUND,
    "MODEL_NOT_FOUND": Kind.NOT_FOUND,
    "ETAG_MISMATCH": Kind.CHANGED,
    "BUNDLE_REJECTED": Kind.WRONG_STATE,
    "NO_PREVIOUS_MODEL": Kind.WRONG_STATE,
    "TRIAL_REFUSED": Kind.WRONG_STATE,
    "OVERLOADED": Kind.OVERLOADED,
    "LOG_UNAVAILABLE": Kind.UNAVAILABLE,
    "CHECKSUM_MISMATCH": Kind.CORRUPT,
    "INTERNAL": Kind.BUG,
}


class ServiceError(Exception):
    """Fault found by the server outside the engine.

    Parameters
    ----------
    reason : name of `ErrorReason` without its prefix
    message : what is wrong and how to mend it; the caller reads it
    field : field at fault; empty where none is
    """

    def __init__(self, reason: str, message: str, *, field: str = "") -> None:
        ErrorReason.Value(f"ERROR_REASON_{reason}")
        super().__init__(message)
        self.reason = reason
        self.field = field


def required(field: str) -> ServiceError:
    """Return the fault of an empty field that must be set."""
    return ServiceError("FIELD_REQUIRED", f"`{field}` is required; set it", field=field)


def out_of_range(field: str, message: str) -> ServiceError:
    """Return the fault of a field outside its limits."""
    return ServiceError("FIELD_OUT_OF_RANGE", f"`{field}` {message}", field=field)


def checked_id(field: str, value: str) -> str:
    """Return an id that a request names.

    Raises
    ------
    ServiceError : FIELD_REQUIRED, FIELD_OUT_OF_RANGE
    """
    if not value:
        raise required(field)
    if (size := len(value.encode())) > MAX_ID_BYTES:
        raise out_of_range(field, f"has {size:,} bytes; an id has at most {MAX_ID_BYTES}")
    return value


def is_bug(error: EngineError | ServiceError) -> bool:
    """Return whether the fault is ours, so that its text is for the log only."""
    return KINDS.get(error.reason, Kind.BUG) is Kind.BUG


def to_status(error: EngineError | ServiceError, request_id: str) -> status_pb2.Status:
    """Return the status of a fault, with its details."""
    return status(error.reason, str(error), field=error.field, request_id=request_id)


def status(reason: str, message: str, *, request_id: str, field: str = "") -> status_pb2.Status:
    """Return the status of a reason, with `ErrorInfo` and, where a field is named, `BadRequest`.

    A status travels in headers, which have little room: text that quotes much of a request is cut.
    """
    message, field = message[:_MAX_TEXT], field[:_MAX_TEXT]
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id})
    if field:
        info.metadata["field"] = field
    result = status_pb2.Status(code=KINDS[reason].value.value[0], message=message, details=[_packed(info)])
    if field and KINDS[reason] is Kind.INVALID_REQUEST:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message, reason=reason)
        result.details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    return result


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
