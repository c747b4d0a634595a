"""What the documentation site takes from outside `docs`: README, changelog, contributing, results and plots.

Pages link to files as they lie in the repository, so that they can be read there. Here such links become links to
pages; files that are no page (a script, a result) are shown by their path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", **{name: name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")}}
PAGES["benchmarks/RESULTS.md"] = "benchmarks/RESULTS.md"
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and plots."""
    plots = sorted((ROOT / "benchmarks/plots").glob("*.svg"))
    for path, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / path)))
    for plot in plots:
        name = f"benchmarks/plots/{plot.name}"
        files.append(File.generated(config, name, abs_src_path=str(plot)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Turn links to files of the repository into links to pages."""
    uri = page.file.src_uri
    lies_at = next((path for path, name in PAGES.items() if name == uri), f"docs/{uri}")

    def to_page(link: re.Match[str]) -> str:
        image, words, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(lies_at), target))
        name = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(name) is not None:
            return f"{image}[{words}]({posixpath.relpath(name, posixpath.dirname(uri) or '.')}{anchor or ''})"
        if not (ROOT / path).exists():
            return link[0]  # which the build then refuses
        return f"{words} (`{path}`)" if words.strip("`") != path else f"`{path}`"

    return _LINK.sub(to_page, markdown)
