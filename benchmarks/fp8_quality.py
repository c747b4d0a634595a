"""What E4M3 costs in search: nDCG@10 of a model folder's `cuda-fp8` graph, computed in numpy as the device rounds.

    bgert export MODEL -o DIR --target cpu --target cuda-fp8
    python benchmarks/fp8_quality.py DIR --collection CRANFIELD --output benchmarks/results/fp8/DATE-MODEL.json

CRANFIELD is a folder in BEIR's format. The fp32 vectors are those of the folder's `cpu` graph. Queries alone run in
small batches, which a device computes in fp16: `fp16_queries` is how these find documents in FP8, with fp32 vectors for
theirs (they differ by 1e-6).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from multiprocessing import Pool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import bgert
from bgert.batching import PackedBatch
from bgert.cpu_count import available_cpus
from bgert.evaluation import load_collection
from bgert.model_folder import Manifest
from bgert.tokenizer import Tokenizer
from quality import ndcg_at_10

if TYPE_CHECKING:
    from numpy.typing import NDArray

PIECE = 50  # texts between two lines of progress


_opened: list[Any] = []


def open_stand_in(folder: Path) -> None:
    """In each process of the pool."""
    from bgert_export.fp8.stand_in import Fp8StandIn

    manifest = Manifest.read(folder)
    graph = manifest.graph("cuda", "fp8")
    if graph is None:
        raise SystemExit(f"{folder} has no graph cuda fp8: bgert export --target cpu --target cuda-fp8")
    _opened[:] = [Fp8StandIn.of(folder, manifest, graph), Tokenizer.from_folder(folder), manifest.max_tokens]


def run(texts: list[str]) -> NDArray[np.float32]:
    """Their vectors in FP8."""
    stand_in, tokenizer, max_tokens = _opened
    encoded = tokenizer.encode_batch(texts, max_length=max_tokens)
    rows: NDArray[np.float32] = stand_in.run_sorted(PackedBatch(encoded.ids, encoded.cu_seqlens, encoded.type_ids))
    return rows


def main() -> int:
    """Measure, then write one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="model folder with the graphs cpu fp32 and cuda fp8")
    parser.add_argument("--collection", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    manifest = Manifest.read(options.folder)
    graph = manifest.graph("cuda", "fp8")
    if graph is None:
        parser.error(f"{options.folder} has no graph cuda fp8: bgert export --target cpu --target cuda-fp8")
    collection = load_collection(options.collection)
    texts = {"documents": list(collection.documents), "queries": list(collection.queries.values())}
    vectors = {}
    with bgert.Encoder(options.folder, device="cpu", precision="fp32") as encoder:
        for name, entries in texts.items():
            vectors[f"fp32 {name}"] = np.asarray(encoder.encode(entries))
    with Pool(available_cpus(), open_stand_in, [options.folder]) as pool:
        for name, entries in texts.items():
            parts = []
            for part in pool.imap(run, [entries[start : start + PIECE] for start in range(0, len(entries), PIECE)]):
                parts.append(part)
                print(f"{name}: {sum(map(len, parts))} of {len(entries)}", file=sys.stderr, flush=True)
            vectors[f"fp8 {name}"] = np.concatenate(parts)
    cosines = {name: (vectors[f"fp8 {name}"] * vectors[f"fp32 {name}"]).sum(1).astype(np.float64) for name in texts}
    from bgert_export.fp8.stand_in import Fp8StandIn

    (choice,) = [choice for choice in manifest.choices if choice.field == "fp8"]
    found = {
        "schema": 1,
        "kind": "fp8-quality",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "engine": Fp8StandIn.engine,
        "weights_sha256": manifest.source["weights_sha256"],
        "in_fp16": choice.value,
        "why": choice.why,
        "floor": graph.floor,
        "collection": {name: len(entries) for name, entries in texts.items()},
        "max_tokens": manifest.max_tokens,
        "ndcg_at_10": {
            "fp32": ndcg_at_10(collection, vectors["fp32 documents"], vectors["fp32 queries"]),
            "fp8": ndcg_at_10(collection, vectors["fp8 documents"], vectors["fp8 queries"]),
            "fp16_queries": ndcg_at_10(collection, vectors["fp8 documents"], vectors["fp32 queries"]),
        },
        "cosine": {
            name: {"mean": round(float(values.mean()), 6), "min": round(float(values.min()), 6)}
            for name, values in cosines.items()
        },
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["ndcg_at_10"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
