"""Commands that ask a running server: `recommend`, `explain`, `placements`."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Group
from rich.table import Table
from rich.text import Text

from server.cli.output import JsonFlag, handled, result
from server.cli.remote import CALL_S, DEFAULT_ADDRESS, AddressOption, connected, slate_table
from shopkeeper.v1 import common_pb2, placement_pb2
from shopkeeper.v1 import placement_service_pb2 as placement_pb
from shopkeeper.v1 import recommendation_service_pb2 as pb

UserArgument = Annotated[
    str, typer.Argument(metavar="USER", help="Id of the customer, or with --anonymous of the visitor.")
]
PlacementOption = Annotated[str, typer.Option("--placement", "-p", help="Place to fill.")]
CountOption = Annotated[
    int, typer.Option("--count", "-k", min=0, max=500, help="Items wanted; 0: as the placement says.")
]
AnchorOption = Annotated[list[str] | None, typer.Option("--item", help="Item the slate belongs to; may be repeated.")]
CartOption = Annotated[list[str] | None, typer.Option("--cart", help="Item in the cart; may be repeated.")]
CategoryOption = Annotated[list[str] | None, typer.Option("--category", help="Only this category; may be repeated.")]
AnonymousFlag = Annotated[
    bool, typer.Option("--anonymous", help="USER is the id of an anonymous visitor, not of a customer.")
]

_REMOVED_SHOWN = 6
_PAGE_SIZE = 1_000


@handled
def recommend(
    user: UserArgument,
    placement: PlacementOption = "home_for_you",
    count: CountOption = 0,
    item: AnchorOption = None,
    cart: CartOption = None,
    category: CategoryOption = None,
    anonymous: AnonymousFlag = False,
    address: AddressOption = DEFAULT_ADDRESS,
    json: JsonFlag = False,
) -> None:
    """Show what a customer would see, with the reason for every item."""
    request = _request(_context(user, cart, anonymous=anonymous), _slate(placement, count, item, category))
    with connected(address) as remote:
        response = remote.recommendations.Recommend(request, timeout=CALL_S)
        (slate,) = response.slates
        rows = remote.slate_rows(slate)
    facts = {
        "request_id": response.request_id,
        "model_version": response.model_version,
        "degraded": list(response.degraded),
        "missing_item_ids": list(slate.missing_item_ids),
    }
    ranked = f"ranked by {response.model_version}" if response.model_version else "ranked by the heuristic"
    table = slate_table(f"{placement} for {user}, {ranked}", rows)
    table.caption = _caption(response, slate)
    result({"placement": placement, "user": user, **facts, "items": rows}, table, as_json=json)


@handled
def explain(
    user: UserArgument,
    placement: PlacementOption = "home_for_you",
    count: CountOption = 5,
    item: AnchorOption = None,
    cart: CartOption = None,
    category: CategoryOption = None,
    anonymous: AnonymousFlag = False,
    address: AddressOption = DEFAULT_ADDRESS,
    json: JsonFlag = False,
) -> None:
    """Show how a decision comes about: stages, scores, what moved them, and what was removed by which filter."""
    request = pb.ExplainRequest(
        request=_request(_context(user, cart, anonymous=anonymous), _slate(placement, count, item, category))
    )
    with connected(address) as remote:
        response = remote.recommendations.Explain(request, timeout=CALL_S)
        (slate,), (trace,) = response.response.slates, response.traces
        rows = remote.slate_rows(slate)
    table = slate_table(f"{placement} for {user}", rows)
    table.caption = _caption(response.response, slate)
    shown = Group(table, _stages(trace), _scores(trace), _removed(trace))
    result(MessageToDict(response, preserving_proto_field_name=True), shown, as_json=json)


@handled
def placements(address: AddressOption = DEFAULT_ADDRESS, json: JsonFlag = False) -> None:
    """List the placements, the places of the shop that can be asked for, and the controls that steer them.

    A control may pin an item before the catalogue has it; such items are named, for a typing error looks the same.
    """
    with connected(address) as remote:
        listed = placement_pb.ListPlacementsRequest(page_size=_PAGE_SIZE)
        found: list[placement_pb2.Placement] = _pages(remote.placements.ListPlacements, listed, "placements")
        steering = placement_pb.ListControlsRequest(page_size=_PAGE_SIZE)
        controls: list[placement_pb2.Control] = _pages(remote.placements.ListControls, steering, "controls")
        pinned = sorted({control.pin.item_id for control in controls if control.HasField("pin")})
        known = remote.items(pinned)
    missing = [item_id for item_id in pinned if item_id not in known]
    table = Table("placement", "what it shows", title="placements", title_justify="left")
    for placement in found:
        table.add_row(placement.placement_id, placement.description)
    facts = {
        "placements": [MessageToDict(one, preserving_proto_field_name=True) for one in found],
        "controls": [MessageToDict(one, preserving_proto_field_name=True) for one in controls],
        "missing_item_ids": missing,
    }
    result(facts, Group(table, _controls(controls, missing)) if controls else table, as_json=json)


def _pages(call: Callable[..., Any], request: Any, name: str) -> list[Any]:
    """Return what all pages hold under `name`."""
    found: list[Any] = []
    while True:
        page = call(request, timeout=CALL_S)
        found += getattr(page, name)
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


def _controls(controls: list[placement_pb2.Control], missing: list[str]) -> Table:
    table = Table("control", "placements", "what it does", "state", title="controls", title_justify="left")
    for control in controls:
        action = control.WhichOneof("action") or ""
        does = {
            "boost": f"multiplies scores by {control.boost.factor:g}",
            "pin": f"puts {control.pin.item_id} at position {control.pin.position}",
        }
        state = "paused" if control.paused else ""
        if control.pin.item_id in missing:
            state = "[yellow]the catalogue lacks the item[/]"
        where = ", ".join(control.placement_ids) or "all"
        table.add_row(control.control_id, where, does.get(action, action).replace("[", r"\["), state)
    return table


def _caption(response: pb.RecommendResponse, slate: pb.Slate) -> Text | None:
    """Return what is not as it was asked for; None where all is."""
    facts = {"not as configured": response.degraded, "the catalogue lacks": slate.missing_item_ids}
    return Text("; ".join(f"{what}: {', '.join(found)}" for what, found in facts.items() if found)) or None


def _slate(placement: str, count: int, items: list[str] | None, categories: list[str] | None) -> pb.PlacementRequest:
    only = common_pb2.ItemFilter(categories=categories) if categories else None
    return pb.PlacementRequest(placement_id=placement, page_size=count, anchor_item_ids=items or (), filter=only)


def _context(user: str, cart: list[str] | None, *, anonymous: bool) -> common_pb2.Context:
    context = common_pb2.Context(cart_item_ids=cart or ())
    setattr(context, "visitor_id" if anonymous else "user_id", user)
    return context


def _request(context: common_pb2.Context, slate: pb.PlacementRequest) -> pb.RecommendRequest:
    return pb.RecommendRequest(context=context, placements=[slate])


def _stages(trace: pb.SlateTrace) -> Table:
    """Return the stages; a filter works inside the sources, and its time is theirs."""
    table = Table("stage", title="stages", title_justify="left")
    for name in ("in", "out", "µs"):
        table.add_column(name, justify="right")
    for stage in trace.stages:
        spent = "" if stage.name.startswith("filter.") else f"{stage.duration_us:,.1f}"
        table.add_row(stage.name, f"{stage.in_count:,}", f"{stage.out_count:,}", spent)
    return table


def _scores(trace: pb.SlateTrace) -> Table:
    table = Table("item", title="scores", title_justify="left")
    table.add_column("model or heuristic", justify="right")
    table.add_column("after controls", justify="right")
    table.add_column("moved most by", overflow="fold")
    for item in trace.items:
        values = {feature.name: feature.value for feature in item.features}
        moved = " ".join(f"{it.name}={values[it.name]:.4g} ({it.effect:+.5f})" for it in item.moved_by)
        table.add_row(item.item_id, f"{item.base_score:.5f}", f"{item.score:.5f}", moved)
    return table


def _removed(trace: pb.SlateTrace) -> Table:
    table = Table("filter", "removed, first items", title="removed", title_justify="left")
    by_filter: dict[str, list[Any]] = {}
    for item in trace.removed:
        by_filter.setdefault(item.filter, []).append(item.item_id)
    for name, ids in by_filter.items():
        table.add_row(name, " ".join(ids[:_REMOVED_SHOWN]))
    return table
