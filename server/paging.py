"""Pages of lists: sizes within limits and tokens that only the method that made them can read."""

import base64
import binascii
from typing import NamedTuple

from server.errors import ServiceError, out_of_range

_DEFAULT_SIZE = 50
_MAX_SIZE = 1_000
_MAX_POSITION = 2**32 - 1
_MAX_DIGITS = len(str(_MAX_POSITION))


class Page(NamedTuple):
    """Part of a list."""

    start: int
    size: int


def page_of(method: str, page_size: int, page_token: str) -> Page:
    """Return the part of the list that a request of `method` asks for.

    Raises
    ------
    ServiceError : FIELD_OUT_OF_RANGE for a negative size, PAGE_TOKEN_INVALID for a token of another method
    """
    if page_size < 0:
        raise out_of_range("page_size", f"is {page_size}; set 0 for {_DEFAULT_SIZE}, or 1 to {_MAX_SIZE:,}")
    return Page(_position(method, page_token), min(page_size or _DEFAULT_SIZE, _MAX_SIZE))


def token_of(method: str, position: int) -> str:
    """Return the token of the page that begins at `position`."""
    return base64.urlsafe_b64encode(f"{method}:{position}".encode()).decode().rstrip("=")


def next_token(method: str, page: Page, total: int) -> str:
    """Return the token of the page after `page` of a list of `total`; empty on the last."""
    end = page.start + page.size
    return token_of(method, end) if end < total else ""


def _position(method: str, token: str) -> int:
    if not token:
        return 0
    try:
        name, _, position = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode().partition(":")
    except (binascii.Error, ValueError):
        name, position = "", ""
    is_number = position.isascii() and position.isdigit() and len(position) <= _MAX_DIGITS
    if name != method or not is_number or int(position) > _MAX_POSITION:
        text = f"`page_token` was not made by {method}; send the `next_page_token` of its page before, or none"
        raise ServiceError("PAGE_TOKEN_INVALID", text, field="page_token")
    return int(position)
