"""The examples of the documentation's "Coming from" pages, run before and after.

An example is two blocks of Python, each under a comment that says which it is:

    <!-- example NAME before -->
    <!-- example NAME after, within 2e-5 -->

Each block leaves its result in `result`: an array, or lists of numbers or strings. The numbers of the second are within
the bound of those of the first, and of the same shape.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).resolve().parents[2] / "docs"
# What an example names, a hub id or a folder that it exported: the model of models.py that stands for it here.
STAND_INS = {
    "sentence-transformers/all-MiniLM-L6-v2": "minilm",
    "BAAI/bge-small-en-v1.5": "bge",
    "BAAI/bge-reranker-base": "reranker",
    "all-MiniLM-L6-v2": "exported-minilm",
    "bge-small-en-v1.5": "exported-bge",
    "bge-reranker-base": "exported-reranker",
    "minilm-portable": "portable-minilm",
    "reranker-portable": "portable-reranker",
}
BLOCK = re.compile(
    r"<!-- example (?P<name>[\w-]+) (?P<side>before|after, within (?P<bound>[\d.e-]+)) -->\n+"
    r"```python\n(?P<code>.*?)```",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Example:
    """One change of code: what stood there, what stands there now, and how far the numbers may part."""

    name: str
    before: str
    after: str
    bound: float

    def check(self, models: dict[str, Path]) -> None:
        """Run both, offline, and compare; the second with the folder that was exported from the first's checkpoint."""
        exported = {name: models.get(f"exported-{name}", path) for name, path in models.items()}
        old, new = run(self.before, models), run(self.after, exported)
        if isinstance(old, str) or (isinstance(old, list) and old and isinstance(old[0], str)):
            assert new == old
            return
        old, new = np.asarray(old), np.asarray(new)
        assert new.shape == old.shape
        np.testing.assert_allclose(new, old, rtol=0, atol=self.bound)


def run(code: str, models: dict[str, Path]) -> Any:
    """What a block leaves in `result`, with the stand-ins in place of hub ids."""
    for name, stand_in in STAND_INS.items():
        code = code.replace(f'"{name}"', repr(str(models[stand_in])))
    names: dict[str, Any] = {}
    exec(compile(code, "example", "exec", dont_inherit=True), names)
    return names["result"]


def examples(page: str) -> list[Example]:
    """The examples of docs/PAGE, in order.

    Raises:
        ValueError: a block has no other half.
    """
    sides: dict[str, dict[str, re.Match[str]]] = {}
    for block in BLOCK.finditer((DOCS / page).read_text("utf-8")):
        sides.setdefault(block["name"], {})[block["side"].partition(",")[0]] = block
    if lone := sorted(name for name, pair in sides.items() if len(pair) != 2):
        raise ValueError(f"{page}: not before and after: {', '.join(lone)}")
    return [
        Example(name, pair["before"]["code"], pair["after"]["code"], float(pair["after"]["bound"]))
        for name, pair in sides.items()
    ]


SNIPPET = re.compile(r"<!-- runs in (?P<environment>\w+) -->\n+```python\n(?P<code>.*?)```", re.DOTALL)


def snippets(page: str, environment: str) -> list[str]:
    """The blocks of docs/PAGE that run in one environment and have no other side to compare, in order."""
    text = (DOCS / page).read_text("utf-8")
    return [block["code"] for block in SNIPPET.finditer(text) if block["environment"] == environment]


def run_snippet(code: str, models: dict[str, Path]) -> None:
    """Run a block, with exported folders in place of hub ids; it asserts what it says."""
    exported = {name: models.get(f"exported-{name}", path) for name, path in models.items()}
    for name, stand_in in STAND_INS.items():
        code = code.replace(f'"{name}"', repr(str(exported[stand_in])))
    exec(compile(code, "example", "exec", dont_inherit=True), {})
