"""What users write, for type checkers: each line that ends in `# wrong` is a mistake, and no other is."""

# ruff: noqa
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars
from numpy.typing import NDArray

import bgert


def right(texts: list[str], queries: Iterable[str], rank: int) -> None:
    encoder = bgert.Encoder(Path("folder"), device="cuda:1", precision="fp16", mode="latency", max_length=512)
    bgert.Encoder("folder", device=None, threads=4, split_special_tokens=True, gpu_memory_limit=10**9)
    bgert.Encoder("folder", device=["cuda:0", "cuda:1"])
    bgert.Encoder("folder", device=cast(bgert.Device, f"cuda:{rank}"))
    rows: bgert.Embeddings = encoder.encode(texts, dtype="binary", dimensions=64, prompt="query")
    plain: NDArray[Any] = encoder.encode("one", dtype=np.float16, prefix="")
    encoder.encode(queries, dtype=np.dtype("int8"))
    encoder.encode(text for text in texts)
    encoder.encode(np.array(texts))
    encoder.encode(np.array(texts, object))
    encoder.encode(polars.Series(texts))
    device: str = rows.info.device
    count: int = rows.info.n_truncated
    cut: NDArray[np.bool_] = rows.info.truncated
    as_json: dict[str, Any] = rows.info.to_dict()
    cosines: NDArray[np.float32] = encoder.similarity(rows, plain)
    dtype: bgert.Dtype = "float16"
    for block in encoder.stream(queries, dtype=dtype, block=100):
        print(block.info.tokens, block.shape, device, count, cut, as_json, cosines)
    with bgert.Reranker("folder", truncation="flag_embedding", query_max_length=100) as reranker:
        scores: bgert.Scores = reranker.score([("q", "d")], sigmoid=True, truncation="only_second", max_length=100)
        kind: str = scores.info.score_kind
        reranker.score(("q", "d"))
        reranker.score([["q", "d"], ["q", "e"]])
        reranker.score(zip(texts, queries))
        best: list[tuple[int, float]] = reranker.rank("q", polars.Series(texts), top_k=3)
        print(kind, best)
    pair: bgert.Pair = ["q", "d"]
    tokens: int = int(encoder.tokenizer.count(texts).sum())
    parts = [chunk.start for chunk in bgert.Tokenizer("folder").chunk("text", 100, overlap=10)]
    print(pair, tokens, parts)
    try:
        encoder.encode_query("q")
        encoder.encode_document(texts, max_length=100)
    except bgert.InvalidTextError as error:
        print(error)


async def right_too(encoder: bgert.Encoder) -> bgert.RunInfo:
    rows = await encoder.aencode(["a"], dtype="int8", max_length=100)
    return rows.info


def wrong(encoder: bgert.Encoder, reranker: bgert.Reranker, texts: list[str]) -> None:
    bgert.Encoder("folder", device="gpu")  # wrong
    bgert.Encoder("folder", device=0)  # wrong
    bgert.Encoder("folder", device="cuda:01")  # wrong
    bgert.Encoder("folder", precision="float16")  # wrong
    bgert.Encoder("folder", mode="fast")  # wrong
    bgert.Encoder("folder", max_length="512")  # wrong
    bgert.Encoder("folder", query_max_length=12)  # wrong
    bgert.Encoder("folder", batch_size=32)  # wrong
    bgert.Encoder(3)  # wrong
    encoder.encode(texts, dtype="float64")  # wrong
    encoder.encode(texts, dtype=np.float64)  # wrong
    encoder.encode(texts, promt="query")  # wrong
    encoder.encode([1, 2])  # wrong
    encoder.encode(b"text")  # wrong
    encoder.encode_queries(texts, prompt="query")  # wrong
    print(encoder.encode(texts).info.tokenz)  # wrong
    encoder.stream(texts, dtype="unsigned")  # wrong
    encoder.similarity(texts)  # wrong
    bgert.Reranker("folder", truncation="longest")  # wrong
    reranker.score([("q", "d")], truncation="only_third")  # wrong
    reranker.score([("q", "d", "e")])  # wrong
    reranker.score(["q", "d"])  # wrong
    reranker.score("q")  # wrong
    reranker.rank(["q"], texts)  # wrong
    print(encoder.encode("a").info.score_kind)  # wrong
    number: int = encoder.encode("a")  # wrong
    print(number)


async def wrong_too(encoder: bgert.Encoder) -> None:
    await encoder.aencode(["a"], dtype="int9")  # wrong
    print(encoder.aencode(["a"]).info)  # wrong
