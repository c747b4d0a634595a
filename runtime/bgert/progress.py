"""A progress bar on stderr, for those who look at a terminal."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bgert.errors import EngineNotInstalledError, install_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Advance = Callable[[int], object]

__all__ = ["TokenBar", "in_terminal", "progress_bar", "token_bar"]

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
    with _tqdm(total, show, unit, optional) as bar:
        yield None if bar is None else bar.update


@contextmanager
def token_bar(texts: int | None, show: bool) -> Iterator[TokenBar | None]:
    """A bar in tokens; None where there is none.

    Args:
        texts: how many there are; None where that is not known, and then the bar knows no end.
        show: whether to.

    Raises:
        EngineNotInstalledError: as `progress_bar`.
    """
    with _tqdm(None, show, "token", optional=False) as bar:
        yield None if bar is None else TokenBar(texts, bar)


@contextmanager
def _tqdm(total: int | None, show: bool, unit: str, optional: bool) -> Iterator[Any]:
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
        yield bar


class TokenBar:
    """Counts tokens of texts that are not all tokenized yet: the bar's end is an estimate until the last window."""

    def __init__(self, texts: int | None, bar: Any) -> None:
        self._texts, self._bar = texts, bar
        self._seen_texts = self._seen_tokens = 0

    def window(self, texts: int, tokens: int) -> None:
        """Texts that are about to run, with all their tokens."""
        self._seen_texts += texts
        self._seen_tokens += tokens
        if self._texts is not None:
            self._bar.total = self._seen_tokens * max(self._texts, self._seen_texts) // self._seen_texts
            self._bar.refresh()

    def advance(self, tokens: int) -> None:
        """Tokens that have run."""
        self._bar.update(tokens)
