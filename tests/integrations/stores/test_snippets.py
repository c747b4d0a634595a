"""The examples of docs/integrations.md and its pages that need no other library to compare with."""

import pages
import pytest

PAGES = ("integrations.md", "coming-from/fastembed.md", "PORTABLE.md")
SNIPPETS = [code for page in PAGES for code in pages.snippets(page, "stores")]


@pytest.mark.parametrize("code", SNIPPETS, ids=lambda code: code.split("\n\n")[0].splitlines()[-1].split()[1])
def test_runs_as_printed(code, models):
    pages.run_snippet(code, models)
