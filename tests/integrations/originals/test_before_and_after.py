"""The examples of the pages for LangChain, LlamaIndex and Haystack, beside the classes they replace."""

import pages
import pytest

PAGES = ("langchain", "llama-index", "haystack")
EXAMPLES = [(page, example) for page in PAGES for example in pages.examples(f"coming-from/{page}.md")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*being sunset:UserWarning")
@pytest.mark.parametrize(("page", "example"), EXAMPLES, ids=[f"{page}-{example.name}" for page, example in EXAMPLES])
def test_the_numbers_are_the_same(page, example, models):
    example.check(models)
