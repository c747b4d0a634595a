"""The examples of docs/coming-from/sentence-transformers.md."""

import pages
import pytest

PAGE = "coming-from/sentence-transformers.md"


@pytest.mark.parametrize("example", pages.examples(PAGE), ids=lambda example: example.name)
def test_the_numbers_are_the_same(example, models):
    example.check(models)
