"""What callers hand over as texts or pairs: any iterable that has an order, and errors that name the caller's item."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bgert.errors import InvalidTextError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["as_iterable", "as_list", "naming"]

_PLACE = re.compile(r"(texts|pairs)\[(\d+)\]")
"""How the tokenizer names an item of its first or its second list."""
_POSITION = re.compile(r"at position (\d+)")


def as_iterable(values: Any, name: str, item: str = "str", width: int | None = None) -> Iterable[Any]:
    """Any iterable with an order: list, tuple, generator, numpy array, column of pandas, polars or Arrow.

    Items are not looked at.

    Args:
        values: what the caller passed.
        name: of the argument, for the message.
        item: what an item should be, for the message.
        width: columns that a table may have; None if it may be no table.

    Raises:
        InvalidTextError: it is a single text, cannot be iterated, has no order, or is a table.
    """
    shape = getattr(values, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1 and (len(shape) != 2 or shape[1] != width):
        raise InvalidTextError(f"{name} is {type(values).__name__} of shape {shape}: pass one column, a list of {item}")
    if hasattr(values, "to_pylist"):  # Arrow, whose items are scalars of its own
        columns = [values] if shape is None else values.columns
        lists: list[list[Any]] = [column.to_pylist() for column in columns]
        return lists[0] if shape is None else list(zip(*lists, strict=True))
    if (
        isinstance(values, (str, bytes, bytearray, memoryview, Mapping, set, frozenset))
        or not hasattr(values, "__iter__")
        or isinstance(values, type)
    ):
        raise InvalidTextError(f"{name} is {type(values).__name__}: pass a list of {item}, or another iterable")
    if isinstance(shape, tuple) and hasattr(values, "to_numpy"):  # iterating a table of pandas gives its columns' names
        values = values.to_numpy()
    listed: Iterable[Any] = values.tolist() if isinstance(shape, tuple) and hasattr(values, "tolist") else values
    return listed


def as_list(values: Any, name: str, item: str = "str", width: int | None = None) -> Sequence[Any]:
    """As `as_iterable`, read to its end."""
    listed = as_iterable(values, name, item, width)
    return listed if isinstance(listed, (list, tuple)) else list(listed)


def naming(error: InvalidTextError, place: Callable[[str, int], str], prompt: str = "") -> InvalidTextError:
    """The tokenizer's error with its item, and the position in it, as the caller knows them.

    Args:
        error: begins with `texts[number]` or `pairs[number]`, or names no item.
        place: from `texts`, `pairs`, or `row` for both, and the number to a name.
        prompt: what was put before each of the `texts`.
    """
    message = str(error)
    found = _PLACE.match(message)
    if found is None:
        return error
    rest = message[found.end() :]
    if prompt and found[1] == "texts":
        rest = _POSITION.sub(lambda at: f"at position {int(at[1]) - len(prompt)}", rest)
    return InvalidTextError(place("row" if rest.startswith(":") else found[1], int(found[2])) + rest)
