"""Options of the question of the next basket, which every command that asks it shares."""

from collections.abc import Callable
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, cast

import typer

from trainers.protocols import NextBasketQuestion

_MinBuyers = Annotated[int, typer.Option(min=1, help="Ask for items that so many visitors bought before.")]
_MinBaskets = Annotated[int, typer.Option(min=1, help="Ask about visitors with so many baskets before.")]
_MinItems = Annotated[int, typer.Option(min=1, help="Ask for the next basket of so many items.")]
_Categories = Annotated[
    list[str] | None,
    typer.Option("--without-category", help="First level of category paths to leave out; may be repeated."),
]
_Subcategories = Annotated[
    list[str] | None,
    typer.Option("--without-subcategory", help="Second level of category paths to leave out; may be repeated."),
]

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "min_buyers": (_MinBuyers, 1),
    "min_baskets": (_MinBaskets, 1),
    "min_items": (_MinItems, 1),
    "without_categories": (_Categories, None),
    "without_subcategories": (_Subcategories, None),
}


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with options in place of its parameter `question`, a `NextBasketQuestion` made of them."""

    def asking(**given: Any) -> None:
        fields = {name: given.pop(name) for name in _OPTIONS}
        lists = {name: tuple(value or ()) for name, value in fields.items() if name.startswith("without")}
        command(**given, question=NextBasketQuestion(**fields | lists))

    own = [parameter for name, parameter in signature(command).parameters.items() if name != "question"]
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OPTIONS.items()
    ]
    named = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own]
    asking.__name__, asking.__doc__ = command.__name__, command.__doc__
    cast("Any", asking).__signature__ = Signature([*named, *options])
    return asking
