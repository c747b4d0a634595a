"""The examples of docs/coming-from/flag-embedding.md."""

import pages
import pytest

PAGE = "coming-from/flag-embedding.md"


@pytest.mark.parametrize("example", pages.examples(PAGE), ids=lambda example: example.name)
def test_the_numbers_are_the_same(example, models):
    example.check(models)
