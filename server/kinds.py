"""Kinds of records by what becomes of them, and what records say."""

from hashlib import blake2b
from typing import Final

from google.protobuf.message import DecodeError

from shopkeeper.v1.common_pb2 import Context
from shopkeeper.v1.event_pb2 import Event
from shopkeeper.v1.record_pb2 import (
    RECORD_KIND_DECISION,
    RECORD_KIND_EVENT,
    RECORD_KIND_PROFILE,
    RECORD_KIND_STATED,
    Erasure,
)

STATING: Final = frozenset({RECORD_KIND_PROFILE, RECORD_KIND_STATED})
"""State something about a visitor that is true until it is stated otherwise."""

QUEUED: Final = frozenset({RECORD_KIND_DECISION, RECORD_KIND_STATED})
"""Are appended later than they were made."""

ERASED: Final = frozenset({RECORD_KIND_EVENT, *STATING, *QUEUED})
"""Go when their visitor is forgotten."""

ACTS: Final = ERASED - QUEUED
"""What a visitor does or says now."""


def context_of(payload: bytes | None) -> Context:
    """Return who an event is about; nobody where the payload cannot be read."""
    try:
        return Event.FromString(payload or b"").context
    except DecodeError:
        return Context()


def erased_user(payload: bytes | None) -> str:
    """Return the user whose erasure this one is part of; "" for none, or where it cannot be read."""
    try:
        return Erasure.FromString(payload or b"").user_id
    except DecodeError:
        return ""


def erasure(key: str, user_id: str = "") -> bytes:
    """Return the payload of the erasure of `key`, which is part of that of `user_id`, if any."""
    return Erasure(visitor_id=key, user_id=user_id).SerializeToString()


def content_id(prefix: str, content: bytes) -> str:
    """Return the id under which records that say the same are stored once."""
    return f"{prefix}-{blake2b(content, digest_size=16).hexdigest()}"
