"""Ways to make one vector of a text's token vectors, by sentence-transformers' names and as it defines them."""

from __future__ import annotations

__all__ = ["MULTI_VECTOR", "POOLINGS", "SPLADES", "joined", "modes_of"]

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""`mean_sqrt_len_tokens` is the sum over the square root of the count; `weightedmean` weighs the tokens 1, 2, 3 ..."""

SPLADES = ("splade", "splade_sum", "splade_log1p")
"""Of the scores of a masked language model: `log(1 + relu)` and the largest of a text's tokens, their sum, and the
largest with the logarithm taken twice."""


MULTI_VECTOR = "multi_vector"
"""Of models that have a vector for every token and none for a text."""


def joined(modes: list[str]) -> str:
    """One name for several poolings whose vectors are put end to end, such as `cls+mean`.

    Raises:
        ValueError: there is none, or one of them is no pooling.
    """
    if not modes or not all(mode in POOLINGS for mode in modes):
        raise ValueError(f"no pooling {modes!r}: use {', '.join(POOLINGS)}, or several joined by +")
    return "+".join(modes)


def modes_of(pooling: str) -> list[str]:
    """The poolings of a name; ValueError as `joined`."""
    return joined(pooling.split("+")).split("+")
