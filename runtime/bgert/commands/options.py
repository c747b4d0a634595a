"""Options that several commands share."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, TypeVar

from bgert.errors import InvalidOptionError
from bgert.option_types import DEVICE_NAMES
from bgert.progress import in_terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["bars", "engine_options", "numbers", "quiet_option"]

Number = TypeVar("Number", int, float)


def engine_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a command runs a model."""
    parser.add_argument("--device", default="auto", help=f"{DEVICE_NAMES} (default: auto)")
    parser.add_argument("--precision", default="auto", help="precision of the graph, as fp32")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all)")


def quiet_option(parser: argparse.ArgumentParser) -> None:
    """For commands that work long enough for a bar."""
    parser.add_argument("--quiet", action="store_true", help="no progress bar (there is none but in a terminal)")


def bars(args: argparse.Namespace) -> bool:
    """Whether to show one: somebody looks and tqdm is there."""
    return not args.quiet and in_terminal() and importlib.util.find_spec("tqdm") is not None


def numbers(option: str, value: str, kind: Callable[[str], Number]) -> list[Number]:
    """The numbers of an option that takes several, as 1,8.

    Raises:
        InvalidOptionError: they are none.
    """
    try:
        return [kind(part) for part in value.split(",")]
    except ValueError:
        wanted = "whole numbers, as 1,8" if kind is int else "numbers, as 0.5,2"
        raise InvalidOptionError(f"{option} is {value!r}: use {wanted}") from None
