"""What the library says of its arguments, in the words of who typed a command: `max_length is 0` is of --max-length."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["as_typed", "flags_of"]

PYTHON_ALONE = {
    "; prefix= takes any other text": "",
    ", or None for all there is": ", or leave it out",
    "use None or a whole number": "use a whole number",
    "load it with bgert.Encoder": "use it with `bgert encode`",
    "load it with bgert.Reranker": "use it with `bgert rerank`",
}
"""What the library advises and no command can do, and what to say instead."""
_VALUE = r"(?P<value>'[^']*'|\"[^\"]*\"|-?[\w.:]*\w)"
_ARGUMENT = re.compile(rf"\b(?P<name>[a-z][a-z0-9]*(?:_[a-z0-9]+)*)={_VALUE}")
_UNKNOWN = re.compile(rf"^(?P<before>unknown )(?P<name>[a-z_]+)(?P<between> ){_VALUE}(?=[:,; ]|$)")
_IS = re.compile(rf"^(?P<before>)(?P<name>[a-z][a-z0-9]*(?:[_ ][a-z0-9]+)*)(?P<between> is ){_VALUE}(?=[:,; ]|$)")


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """The options of a command: the name in Python to the long form that is typed."""
    return {action.dest: max(action.option_strings, key=len) for action in parser._actions if action.option_strings}


def as_typed(message: str, args: argparse.Namespace | None) -> str:
    """A message of the library, its arguments called by the flags of the command.

    Args:
        message: an error's or a warning's.
        args: of the command, with its `flags`; None where there was none yet.
    """
    flags: dict[str, str] = getattr(args, "flags", {})
    for python, instead in PYTHON_ALONE.items():
        message = message.replace(python, instead)

    def argument(found: re.Match[str]) -> str:
        flag = flags.get(found["name"])
        if flag is None:
            return found[0]
        return flag if found["value"] == "True" else f"{flag} {found['value'].strip(chr(39))}"

    message = _ARGUMENT.sub(argument, message)
    found = _UNKNOWN.match(message) or _IS.match(message)
    if found is not None and (flag := _given(found["name"].replace(" ", "_"), found["value"], args, flags)):
        return f"{found['before']}{flag}{found['between']}{found['value']}{message[found.end() :]}"
    return message


def _given(name: str, value: str, args: Any, flags: dict[str, str]) -> str | None:
    """The flag by which this value of this argument was given; of several, the one that is named most alike.

    A command may have an argument twice (--precision, --reranker-precision), or call it by a shorter name (--length).
    """
    alike = [
        dest for dest in flags if dest in (name, f"{name}s") or dest.endswith(f"_{name}") or name.endswith(f"_{dest}")
    ]
    for dest in sorted(alike, key=lambda dest: (dest != name, dest)):
        given = getattr(args, dest, None)
        whole = given if isinstance(given, list) else [given]
        parts = [*whole, *(part for one in whole for part in str(one).split(","))]
        if any(value in (repr(part), str(part)) for part in parts):
            return flags[dest]
    return None
