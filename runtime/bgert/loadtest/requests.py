"""What is sent: texts of mixed length in requests of one size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bgert.evaluation.sample_texts import sample_texts
from bgert.loadtest.client import post
from bgert.loadtest.load import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgert import Encoder

__all__ = ["embeddings", "mixed_texts", "token_counts"]


def token_counts(encoder: Encoder, texts: Sequence[str]) -> list[int]:
    """Tokens of each text as the model sees it."""
    return [min(int(count), encoder.max_length) for count in encoder.tokenizer.count(texts)]


def mixed_texts(encoder: Encoder, count: int) -> list[str]:
    """Texts of mixed length (docstrings of the standard library) that the model takes uncut."""
    texts = sample_texts(2 * count)
    whole = [
        text for text, tokens in zip(texts, encoder.tokenizer.count(texts), strict=True) if tokens <= encoder.max_length
    ]
    return (whole * (1 + count // len(whole)))[:count]


def embeddings(
    encoder: Encoder,
    texts: Sequence[str],
    each: int,
    *,
    base64: bool = True,
    path: str = "/v1/embeddings",
    model: str = "m",
) -> list[Job]:
    """Requests of `each` texts to OpenAI's route."""
    counts = token_counts(encoder, texts)
    jobs = []
    for start in range(0, len(texts) - each + 1, each):
        body = {
            "model": model,
            "input": texts[start : start + each],
            "encoding_format": "base64" if base64 else "float",
        }
        data = post(path, json.dumps(body).encode())
        jobs.append(Job(data, each, sum(counts[start : start + each])))
    return jobs
