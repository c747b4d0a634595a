"""What the probes of Hugging Face `tokenizers` share: arrays of C++, and writing or comparing the file of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["filled", "options_of", "table", "write_or_check"]


def filled(cells: list[str]) -> list[str]:
    """Cells with commas behind them, as lines."""
    lines, line = [], ""
    for cell in cells:
        if len(line) + len(cell) > 110:
            lines.append(line)
            line = ""
        line += cell + ","
    return [*lines, line]


def table(head: str, cells: list[str]) -> str:
    """One array."""
    return "\n".join([head + " = {", *filled(cells), "};"])


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options of a probe."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 if the committed tables differ")
    return parser


def write_or_check(version: str, output: Path, render: Callable[[], str], *, check: bool) -> int:
    """Write the tables, or compare them; the exit status."""
    import tokenizers  # here, so that --help needs numpy alone

    if not tokenizers.__version__.startswith(version + "."):
        print(f"tokenizers {tokenizers.__version__} is installed, the tables are pinned to {version}.x")
        return 2
    text = render()
    if check:
        same = output.read_text(encoding="utf-8") == text
        print("the tables are those of the installed tokenizers" if same else f"{output} is out of date")
        return 0 if same else 1
    output.write_text(text, encoding="utf-8")
    return 0
