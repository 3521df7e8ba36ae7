"""Types of settings that check more than their kind."""

import ipaddress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field

ID_HOURS: Final = 168
"""Hours for which the contract knows the ids of events."""

_empty_is_none = BeforeValidator(lambda value: None if value == "" else value)
Port = Annotated[int, Field(ge=0, le=65_535)]
OptionalPath = Annotated[Path | None, _empty_is_none]
OptionalTime = Annotated[
    datetime | None,
    _empty_is_none,
    AfterValidator(lambda time: time.replace(tzinfo=UTC) if time and time.tzinfo is None else time),
]


def _known_zone(name: str) -> str:
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name} names no time zone; take a name of the IANA, e.g. Europe/Berlin") from error


TimeZone = Annotated[str, AfterValidator(_known_zone)]


def _open_ports(servers: str) -> str:
    for server in filter(None, servers.split(",")):
        if not 0 < int(server.rpartition(":")[2]) <= 65_535:  # noqa: PLR2004 - the last of TCP
            raise ValueError(f"{server} has no port that there is; give one from 1 to 65535")
    return servers


def _knows_ids(hours: int) -> int:
    if 0 < hours < ID_HOURS:
        raise ValueError(
            f"{hours} h is less than the {ID_HOURS} h in which an event may be repeated; give 0, or as many"
        )
    return hours


KeptHours = Annotated[int, Field(ge=0, le=876_000), AfterValidator(_knows_ids)]
Server = Annotated[str, Field(pattern=r"^$|^[^,\s]+:\d{1,5}$"), AfterValidator(_open_ports)]
Servers = Annotated[str, Field(pattern=r"^$|^[^,\s]+:\d{1,5}(,[^,\s]+:\d{1,5})*$"), AfterValidator(_open_ports)]


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"
