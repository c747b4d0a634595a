"""A progress bar on stderr, for those who look at a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bgert.errors import EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[int], object]

__all__ = ["in_terminal", "progress_bar"]

LONG_WORK = 2_000  # texts from which a progress bar is worth its line


def in_terminal() -> bool:
    """Whether somebody may be looking at stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose stderr is no terminal."""
    return "ipykernel" in sys.modules


@contextmanager
def progress_bar(
    total: int | None, show: bool | None, *, unit: str = "text", optional: bool = False
) -> Iterator[Advance | None]:
    """A tqdm bar; yields what advances it by some units, or None where there is no bar.

    Args:
        total: units of the whole work; None where that is not known.
        show: whether to; None for long work in a terminal or a notebook.
        unit: what is counted.
        optional: go on without a bar where tqdm is not installed, though one was asked for.

    Raises:
        EngineNotInstalledError: a bar was asked for and tqdm is not installed.
    """
    if show is None:
        optional = True
        show = total is not None and total >= LONG_WORK and (in_terminal() or in_notebook())
    if not show:
        yield None
        return
    try:
        from tqdm import auto
    except ImportError:
        if not optional:
            raise EngineNotInstalledError(f"a progress bar needs tqdm: {install_extra('cpu')}") from None
        yield None
        return
    with auto.tqdm(total=total, unit=unit, file=sys.stderr, unit_scale=unit == "token") as bar:
        yield bar.update
