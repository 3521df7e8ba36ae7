"""Whether the data that come in are what they should be: counts by type, and one finding for each kind of fault."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from google.protobuf.message import DecodeError, Message

from server.ports import RowStore
from server.workers.rows import rows_of
from shopkeeper.v1.common_pb2 import Interval
from shopkeeper.v1.item_pb2 import Item
from shopkeeper.v1.placement_pb2 import Control
from shopkeeper.v1.profile_service_pb2 import Profile

DAY_MS: Final = 86_400_000
RECENT_DAYS: Final = 7
"""Days before the newest event that are held against those before them."""
LOOKED_AT_DAYS: Final = 35
"""Days before the newest event that are looked at; the counts by type are over all."""
LATE_MS: Final = DAY_MS
"""Between an event and its arrival, from which on it is late."""
AHEAD_MS: Final = 60_000
"""By which an event may come after its arrival, for clocks differ."""

_TOLERATED_SHARE: Final = 0.05
"""Of lines or events with a fault, from which on it is a warning."""
_DRIFT: Final = 0.25
"""Change in the share of events with a field from which on it is one."""
_LEAST_EVENTS: Final = 100
"""On both sides of a comparison."""
_SAMPLE: Final = 1_000
_EXAMPLES: Final = 5

_KNOWN: Final = "item_id IN (SELECT item_id FROM items FINAL WHERE NOT deleted)"
FIELDS: Final = {
    "session_id": "session_id != ''",
    "store_id": "store_id != ''",
    "country_code": "country_code != ''",
    "device": "device != ''",
    "campaign_id": "campaign_id != ''",
    "query": "query != ''",
    "attribution_token": "attribution_token != ''",
    "price": "price IS NOT NULL",
    "currency": "currency != ''",
    "position": "position > 0",
    "known_item": _KNOWN,
}
"""What the first line of an event may have, by name."""

_TYPES: Final = """
SELECT event_type, countIf(line = 0) AS events, count() AS lines, uniq(visitor_id) AS visitors,
    min(time_ms) AS first_ms, max(time_ms) AS last_ms
FROM events FINAL GROUP BY event_type ORDER BY event_type
"""
_UNJOINED: Final = f"""
SELECT count() AS lines, countIf(NOT {_KNOWN}) AS unjoined, uniqExactIf(item_id, NOT {_KNOWN}) AS items
FROM events FINAL WHERE time_ms > {{since:Int64}} AND item_id != ''
"""  # noqa: S608
_UNKNOWN_ITEMS: Final = f"""
SELECT item_id, count() AS lines FROM events FINAL
WHERE time_ms > {{since:Int64}} AND item_id != '' AND NOT {_KNOWN}
GROUP BY item_id ORDER BY lines DESC, item_id LIMIT {_EXAMPLES}
"""  # noqa: S608
_TIMES: Final = f"""
SELECT count() AS events,
    countIf(arrive_ms > 0 AND time_ms < arrive_ms - {LATE_MS}) AS late,
    countIf(arrive_ms > 0 AND time_ms > arrive_ms + {AHEAD_MS}) AS ahead
FROM events FINAL WHERE line = 0 AND time_ms > {{since:Int64}}
"""  # noqa: S608
_SAME_ID: Final = """
SELECT count() AS ids FROM (
    SELECT event_id FROM events FINAL WHERE line = 0 AND time_ms > {since:Int64}
    GROUP BY event_id HAVING uniqExact(visitor_id) > 1
) AS shared
"""
_SAME_ACT: Final = """
SELECT sum(copies - 1) AS events FROM (
    SELECT uniqExact(event_id) AS copies FROM events FINAL WHERE line = 0 AND time_ms > {since:Int64}
    GROUP BY visitor_id, event_type, item_id, query, time_ms HAVING copies > 1
) AS alike
"""
_FILLED: Final = f"""
SELECT event_type, time_ms > {{recent:Int64}} AS is_recent, count() AS events,
    {", ".join(f"countIf({condition}) AS with_{name}" for name, condition in FIELDS.items())}
FROM events FINAL WHERE line = 0 AND time_ms > {{since:Int64}}
GROUP BY event_type, is_recent ORDER BY event_type, is_recent
"""  # noqa: S608
_BAD: Final = """
SELECT kind, reason, count() AS rows FROM bad_events FINAL WHERE dismiss_ms = 0
GROUP BY kind, reason ORDER BY rows DESC, kind, reason
"""
_DISMISSED: Final = "SELECT count() FROM bad_events FINAL WHERE dismiss_ms > 0"
_CONTROLS: Final = """
SELECT payload FROM documents FINAL WHERE kind = 'control' AND NOT deleted ORDER BY document_id
"""
_THERE: Final = "SELECT item_id FROM items FINAL WHERE NOT deleted AND item_id IN {ids:Array(String)} ORDER BY item_id"
_NEWEST: Final = "SELECT max(time_ms) AS end_ms FROM events WHERE time_ms <= {now:Int64}"
_PAYLOADS: Final[Mapping[str, type[Message]]] = {"items": Item, "profiles": Profile}


class Finding(NamedTuple):
    """Outcome of one check."""

    check: str
    state: Literal["ok", "warn"]
    finding: str
    then: str = ""


class Quality(NamedTuple):
    """What was found."""

    end_ms: int
    """Moment of the newest event, Unix milliseconds; 0 if there is none."""
    types: list[dict[str, Any]]
    """Events, lines, visitors and span of time of each type."""
    findings: list[Finding]


def examine(store: RowStore, now_ms: int) -> Quality:
    """Return the state of the data at `now_ms`, the time of the shop; what is newer counts as ahead of it."""
    ((end_ms,),) = _rows(store, _NEWEST, {"now": now_ms})
    since = {"since": end_ms - LOOKED_AT_DAYS * DAY_MS}
    types = store.query(_TYPES).to_pylist()
    ((events, late, ahead),) = _rows(store, _TIMES, since)
    findings = [
        _fresh(end_ms, now_ms),
        _unjoined(store, since),
        _pinned(store, now_ms),
        *_times(events, late, ahead),
        *_duplicates(store, since, events),
        _types(types),
        _drift(store, since | {"recent": end_ms - RECENT_DAYS * DAY_MS}),
        _unknown_fields(store),
        _bad(store),
    ]
    return Quality(end_ms, types, findings)


def _fresh(end_ms: int, now_ms: int) -> Finding:
    if not end_ms:
        return Finding("newest event", "warn", "there is none", "`shopkeeper import events`, or send some")
    days = (now_ms - end_ms) / DAY_MS
    if days > 1:
        return Finding("newest event", "warn", f"{days:,.0f} days old", "look whether the shop still sends")
    return Finding("newest event", "ok", f"{days * 24:.1f} h old")


def _unjoined(store: RowStore, since: Mapping[str, int]) -> Finding:
    ((lines, unjoined, items),) = _rows(store, _UNJOINED, since)
    examples = [item_id for item_id, _ in _rows(store, _UNKNOWN_ITEMS, since)]
    text = f"{unjoined:,} of {lines:,} lines name {items:,} items that the catalogue lacks"
    then = f"import the items, or send their ids as the catalogue has them; {_some(examples)}"
    return _of_share("unjoined items", unjoined, lines, (text, then))


def _pinned(store: RowStore, now_ms: int) -> Finding:
    """Look for pins in force, now or later, of items that the catalogue lacks; a pin may be set before its item is."""
    controls = [Control.FromString(row["payload"]) for row in rows_of(store.query(_CONTROLS))]
    pins = {
        control.pin.item_id
        for control in controls
        if control.HasField("pin") and not control.paused and not _is_over(control.active, now_ms)
    }
    there = {item_id for (item_id,) in _rows(store, _THERE, {"ids": sorted(pins)})} if pins else set()
    if missing := sorted(pins - there):
        text = f"{len(missing):,} of {len(pins):,} items that controls pin are not in the catalogue"
        then = f"import the items, or mend the controls, as `shopkeeper placements` lists them; {_some(missing)}"
        return Finding("pinned items", "warn", text, then)
    return Finding("pinned items", "ok", f"the catalogue has the {len(pins):,} items that controls pin")


def _is_over(span: Interval, now_ms: int) -> bool:
    return span.HasField("end_time") and span.end_time.ToMilliseconds() <= now_ms


def _some(ids: Sequence[str]) -> str:
    return f"e.g. {', '.join(ids[:_EXAMPLES])}"


def _times(events: int, late: int, ahead: int) -> Iterator[Finding]:
    text = f"{late:,} of {events:,} events came more than {LATE_MS / DAY_MS:.0f} day after they happened"
    yield _of_share("late events", late, events, (text, "send events as they happen; imports of history are late too"))
    text = f"{ahead:,} of {events:,} events happened more than {AHEAD_MS / 1000:.0f} s after they came"
    state: Literal["ok", "warn"] = "warn" if ahead else "ok"
    yield Finding("future events", state, text, "set the clocks of the senders" if ahead else "")


def _duplicates(store: RowStore, since: Mapping[str, int], events: int) -> Iterator[Finding]:
    ((ids,),) = _rows(store, _SAME_ID, since)
    state: Literal["ok", "warn"] = "warn" if ids else "ok"
    yield Finding(
        "shared event ids",
        state,
        f"{ids:,} ids are of more than one visitor",
        "make each event an id of its own (UUIDv7)" if ids else "",
    )
    ((copies,),) = _rows(store, _SAME_ACT, since)
    text = f"{copies:,} events say under another id what one said before: same visitor, type, item and moment"
    yield _of_share("repeated events", copies, events, (text, "keep the id of an event that is sent again"))


def _types(types: list[dict[str, Any]]) -> Finding:
    unknown = sum(row["events"] for row in types if not row["event_type"])
    if unknown:
        return Finding("event types", "warn", f"{unknown:,} events have a type that is not known", "update this server")
    return Finding("event types", "ok", ", ".join(row["event_type"] for row in types) or "none")


def _drift(store: RowStore, span: Mapping[str, int]) -> Finding:
    sides: dict[str, dict[bool, dict[str, int]]] = defaultdict(dict)
    for row in store.query(_FILLED, span).to_pylist():
        sides[row.pop("event_type")][bool(row.pop("is_recent"))] = row
    if sum(side[False]["events"] for side in sides.values() if False in side) < _LEAST_EVENTS:
        return Finding("drift", "ok", f"too few events came before the last {RECENT_DAYS} days to compare with")
    changes = [change for name, side in sorted(sides.items()) for change in _changes(name, side)]
    if changes:
        return Finding("drift", "warn", "; ".join(changes), "ask who sends these events what changed")
    return Finding("drift", "ok", f"the last {RECENT_DAYS} days are like those before")


def _changes(event_type: str, side: Mapping[bool, Mapping[str, int]]) -> Iterator[str]:
    """Yield what the recent events of a type have otherwise than those before."""
    nothing: Mapping[str, int] = defaultdict(int)
    before, recent = side.get(False, nothing), side.get(True, nothing)
    if min(before["events"], recent["events"]) < _LEAST_EVENTS:
        for one, other, word in ((before, recent, "ended"), (recent, before, "is new")):
            if one["events"] >= _LEAST_EVENTS and not other["events"]:
                yield f"{event_type} {word} ({one['events']:,} events)"
        return
    for name in FIELDS:
        shares = [part[f"with_{name}"] / part["events"] for part in (before, recent)]
        if abs(shares[1] - shares[0]) >= _DRIFT:
            yield f"{event_type} has {name} in {shares[1]:.0%}, before in {shares[0]:.0%}"


def _unknown_fields(store: RowStore) -> Finding:
    """Look for fields of a newer contract in the newest items and profiles; events are stripped of them on arrival."""
    found = []
    for table, kind in _PAYLOADS.items():
        sql = f"SELECT payload FROM {table} FINAL ORDER BY log_offset DESC LIMIT {_SAMPLE}"  # noqa: S608
        payloads = [row["payload"] for row in rows_of(store.query(sql))]
        if count := sum(_has_unknown(kind, payload) for payload in payloads):
            found.append(f"{count:,} of the newest {len(payloads):,} {table}")
    if found:
        return Finding("unknown fields", "warn", " and ".join(found), "update this server to the senders' contract")
    return Finding("unknown fields", "ok", "none in the newest items and profiles")


def _has_unknown(kind: type[Message], payload: bytes) -> bool:
    try:
        message = kind.FromString(payload)
    except DecodeError:
        return True
    byte_count = message.ByteSize()
    message.DiscardUnknownFields()  # nested ones too
    return message.ByteSize() < byte_count


def _bad(store: RowStore) -> Finding:
    rows = _rows(store, _BAD)
    ((dismissed,),) = _rows(store, _DISMISSED)
    more = f"; {dismissed:,} are dismissed" if dismissed else ""
    if rows:
        count = sum(number for *_, number in rows)
        text = f"{count:,} records are set aside, most for: {rows[0][1][:200]}{more}"
        then = "`shopkeeper replay --out FILE`; what can never be mended, `shopkeeper replay FILE --dismiss`"
        return Finding("bad records", "warn", text, then)
    return Finding("bad records", "ok", f"none is set aside{more}")


def _of_share(check: str, count: int, total: int, texts: tuple[str, str]) -> Finding:
    is_bad = count > _TOLERATED_SHARE * total
    return Finding(check, "warn" if is_bad else "ok", texts[0], texts[1] if is_bad else "")


def _rows(store: RowStore, sql: str, params: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in store.query(sql, params).columns), strict=True))
