"""Search in two stages: the encoder finds a hundred candidates, the reranker reads each beside the query.

    python examples/two_stage_search.py --encoder bge-small-en-v1.5 --reranker bge-reranker-base "copy a folder"

The corpus is the docstrings of Python's standard library.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import bgert
from bgert.evaluation.sample_texts import docstrings


def search(
    encoder: bgert.Encoder, reranker: bgert.Reranker, corpus: dict[str, str], query: str, candidates: int = 100
) -> list[tuple[str, float]]:
    """Names of the three best documents with the reranker's scores."""
    names, texts = list(corpus), list(corpus.values())
    vectors = encoder.encode_corpus(texts)  # a real application keeps these
    similarities = vectors @ encoder.encode_queries(query)
    nearest = np.argsort(-similarities)[:candidates]
    ranked = reranker.rank(query, [texts[index] for index in nearest], top_k=3)
    return [(names[nearest[position]], score) for position, score in ranked]


def main() -> int:
    """Search once and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("query")
    parser.add_argument("--encoder", required=True, help="model folder of an encoder")
    parser.add_argument("--reranker", required=True, help="model folder of a reranker")
    args = parser.parse_args()
    encoder, reranker = bgert.Encoder(args.encoder), bgert.Reranker(args.reranker)
    for name, score in search(encoder, reranker, docstrings(), args.query):
        print(f"{score:8.3f}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
