"""The table of docs/coming-from/queries.md: what a call of another library puts before a query, and what to call here.

@pytest.mark.parametrize("row", query_table.rows("haystack"), ids=str)
def test_queries(row, models):
    row.check(models["bge"], models["exported-bge"], {"SentenceTransformersTextEmbedder": ...})
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGE = pages.DOCS / "coming-from/queries.md"
TEXT = "where do I find the file"
# Who runs a library's rows: the tests' folder, or None for who only reads its source.
ENVIRONMENTS = {
    "FlagEmbedding": "flag_embedding",
    "sentence-transformers": "flag_embedding",
    "transformers": "flag_embedding",
    "mteb": "flag_embedding",
    "langchain-community": None,
    "langchain-huggingface": None,
    "llama-index": None,
    "haystack": None,
    "fastembed": None,
    "text-embeddings-inference": None,
    "infinity": None,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    library: str
    call: str
    """What is called there: an expression of `path` and `text`, where it is one."""
    added: str
    """What that puts before the text."""
    here: str
    """What is called here: an expression of `encoder` and `text`."""

    def __str__(self) -> str:
        return f"{self.library}: {self.call[:60]}"

    def check(self, checkpoint: Path, folder: Path, names: Mapping[str, Any], bound: float = 2e-5) -> None:
        """Both calls give the vector of the text with just that before it, to `bound`; another prefix gives another.

        Args:
            checkpoint: what the other library opens.
            folder: what bgert exported from it.
            names: of the other library.
            bound: of the largest difference of a component.
        """
        there = flat(eval(self.call, {**names, "path": str(checkpoint), "text": TEXT}))
        self.check_vector(there, folder, bound)

    def check_vector(self, there: Any, folder: Path, bound: float = 2e-5) -> None:
        """As `check`, of the vector that the other library gave for `TEXT`."""
        import bgert

        encoder = bgert.Encoder(folder)
        plain = flat(encoder.encode(self.added + TEXT, prefix=""))
        here = flat(eval(self.here, {"encoder": encoder, "text": TEXT}))
        np.testing.assert_array_equal(here, plain)
        np.testing.assert_allclose(flat(there), plain, rtol=0, atol=bound)
        for other in {row.added for row in rows()} - {self.added}:
            assert np.abs(plain - flat(encoder.encode(other + TEXT, prefix=""))).max() > 10 * bound


def flat(vector: Any) -> np.ndarray:
    """A vector as float64[dim], from an array, a tensor, a list or a list of one."""
    return np.asarray(vector.detach() if hasattr(vector, "detach") else vector, np.float64).reshape(-1)


def rows(library: str | None = None) -> list[Row]:
    """The rows of a library, or all of them."""
    table = re.search(r"<!-- queries:.*?-->\n(.*?)<!-- end of queries -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert table is not None
    found = []
    for line in table[1].strip().splitlines()[2:]:
        name, call, added, here = (cell.strip() for cell in line.strip("|\n").split(" | "))
        code, text, own = (re.match(r"`([^`]*)`", cell) for cell in (call, added, here))
        assert code is not None, line
        assert own is not None, line
        assert (text is None) == (added == "nothing"), line
        before = "" if text is None else text[1].replace("\\n", "\n")
        found.append(Row(name, code[1], before, own[1]))
    assert {row.library for row in found} == ENVIRONMENTS.keys()
    return [row for row in found if library in (None, row.library)]
