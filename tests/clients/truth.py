"""Prints what `Encoder` and `Reranker` give for the texts of `asking`: `python truth.py ENCODER RERANKER`."""

import json
import sys
import warnings

import asking

from bgert import Encoder, Reranker
from bgert.batching import PackedBatch
from bgert.reranker import logistic

warnings.simplefilter("ignore")
encoder, reranker = Encoder(sys.argv[1], device="cpu"), Reranker(sys.argv[2], device="cpu")
left = " ".join(asking.LONG.split()[-asking.KEPT :])
texts = [*asking.TEXTS, asking.QUERY, asking.LONG, left, *json.loads(asking.README_TEXTS[0])]
vectors = {
    "float32": encoder.encode(texts),
    "float32 short": encoder.encode(texts, dimensions=asking.DIMENSIONS),
    "int8": encoder.encode(texts, dtype="int8"),
    "ubinary": encoder.encode(texts, dtype="ubinary"),
}
alone = reranker.tokenizer.encode_batch(asking.TEXTS[:1])
logits = reranker.backend.run(PackedBatch(alone.ids, alone.cu_seqlens, alone.type_ids))
pairs = [(asking.QUERY, text) for text in asking.TEXTS]
result = {
    "vectors": {kind: dict(zip(texts, rows.tolist(), strict=True)) for kind, rows in vectors.items()},
    "tokens": {text: encoder.encode([text]).info.tokens for text in texts},
    "left": left,
    "scores": {
        "raw": reranker.score(pairs).tolist(),
        "sigmoid": reranker.score(pairs, sigmoid=True).tolist(),
        "alone": float(logistic(logits)[0, 0]),
    },
}
json.dump(result, sys.stdout)
