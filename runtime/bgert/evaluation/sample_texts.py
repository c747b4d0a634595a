"""Real text that every machine with Python has: the docstrings of the standard library.

The demo searches them, tests and benchmarks run on them. Sources are parsed, never imported.
"""

from __future__ import annotations

import ast
import functools
import inspect
import random
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["docstrings", "sample_texts"]

_SKIPPED = {
    "test",
    "tests",
    "distutils",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
_Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@functools.cache
def docstrings() -> dict[str, str]:
    """Qualified public name (`shutil.copytree`) to docstring, one word to about a thousand, each text once."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED & set(parts) or any(part.startswith("_") and part != "__init__" for part in parts):
            continue
        module = ".".join(part for part in parts if part != "__init__")
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):  # templates and fixtures that are no Python
            continue
        for name, text in _walk(tree, module):
            if text not in seen:
                seen.add(text)
                found[name] = text
    return found


def sample_texts(count: int, seed: int = 0) -> list[str]:
    """`count` texts of mixed length, drawn with a seed; texts repeat only when there are not enough.

    Docstrings of a library are mostly short, so every third text joins several into a passage.
    """
    pool = list(docstrings().values())
    draw = random.Random(seed)  # noqa: S311 - a sample, not a secret
    draw.shuffle(pool)
    texts: list[str] = []
    source = iter(pool * (1 + 4 * count // max(len(pool), 1)))
    while len(texts) < count:
        joined = draw.choice((1, 1, 1, 1, 2, 3))
        texts.append("\n\n".join(next(source) for _ in range(joined)))
    return texts


def _walk(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, (ast.Module, *_Definition)):
        text = ast.get_docstring(node)
        if text and text.strip():
            yield name, inspect.cleandoc(text)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition) and not child.name.startswith("_"):
            yield from _walk(child, f"{name}.{child.name}")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from _walk(child, name)
