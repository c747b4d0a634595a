"""The pages tell the truth: their Python runs, and the site has all of them."""

import ast
import re
from pathlib import Path

import pytest

from bgert_export import export
from multi_vector_checkpoints import write_colbert_ai

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(<!-- [^\n]* -->\n+)?```python\n(.*?)```", re.DOTALL)
ELSEWHERE = ("<!-- example ", "<!-- runs in ", "<!-- needs ")  # integrations/pages.py runs the first two


def blocks():
    """Each block of Python of a page that no comment before it gives to another test."""
    for page in sorted(DOCS.rglob("*.md")):
        for number, (comment, code) in enumerate(BLOCK.findall(page.read_text("utf-8"))):
            if not comment.startswith(ELSEWHERE):
                yield pytest.param(code, id=f"{page.relative_to(DOCS)}-{number}")


@pytest.mark.parametrize("code", list(blocks()))
def test_python_blocks_run(code, demo_folder, tmp_path, monkeypatch):
    """With a model folder at the path that a page speaks of; a path wins over a hub id."""
    (tmp_path / "BAAI").mkdir()
    for name in ("bge-small-en-v1.5", "BAAI/bge-small-en-v1.5", "all-MiniLM-L6-v2"):
        (tmp_path / name).symlink_to(demo_folder)
    if '"colbertv2.0"' in code:
        export(write_colbert_ai(tmp_path / "checkpoint", query_maxlen=32), tmp_path / "colbertv2.0", verify=False)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page.md", "exec"), {"__name__": "page"})


def test_the_site_has_every_page():
    nav = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= nav


def test_messages_of_the_page_on_trouble_are_those_that_are_said():
    """Each as the code has it, in one string or over several lines of it."""
    page = (DOCS / "TROUBLE.md").read_text("utf-8").split("## What it says")[1].split("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 8
    said = "".join(
        one.value
        for path in sorted([*(ROOT / "runtime/bgert").rglob("*.py"), *(ROOT / "export/bgert_export").rglob("*.py")])
        for one in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    )
    assert [message for message in messages if message not in said] == []
