"""Checkpoints in the shapes of published models: exported, compared with PyTorch and encoded with, one after the other.

    python benchmarks/true_shapes.py --tokenizers FOLDER [--only bge-m3,modernbert-base]

Weights are seeded random numbers, so this shows what an export of that size takes and how far from PyTorch it comes,
and nothing about quality. Each result is written to `benchmarks/results/true-shapes.json` as soon as it is there; what
is there already is not done again, unless it failed. `FOLDER` holds `bert-base-uncased` and `xlm-roberta-base` as they
are published; vocabularies of MPNet and CamemBERT are made of those, byte-level BPE is trained on a few texts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bgert
import machine
import random_checkpoint
from bgert.model_folder import Manifest
from shape_tokenizers import write_tokenizer

RESULTS = machine.ROOT / "benchmarks" / "results" / "true-shapes.json"


@dataclass(frozen=True)
class Shape:
    """One published model."""

    geometry: str
    """Of `random_checkpoint`."""
    tokenizer: str
    """Of `shape_tokenizers`."""
    max_tokens: int = 512
    """That its files have."""


# The quick ones first.
SHAPES = {
    "all-MiniLM-L6-v2": Shape("minilm", "bert", 256),
    "bge-small-en-v1.5": Shape("bge-small", "bert"),
    "multi-qa-distilbert-cos-v1": Shape("distilbert-base", "bert"),
    "bge-base-en-v1.5": Shape("bge-base", "bert"),
    "all-mpnet-base-v2": Shape("all-mpnet-base-v2", "mpnet", 384),
    "roberta-base": Shape("roberta-base", "roberta"),
    "camembert-base": Shape("camembert-base", "camembert"),
    "electra-base": Shape("electra-base", "bert"),
    "multilingual-e5-base": Shape("multilingual-e5-base", "xlm-roberta"),
    "bge-reranker-base": Shape("bge-reranker-base", "xlm-roberta"),
    "bge-large-en-v1.5": Shape("bge-large", "bert"),
    "nomic-embed-text-v1.5": Shape("nomic-embed-v1.5", "bert", 8192),
    "snowflake-arctic-embed-m-long": Shape("arctic-m-long", "bert", 2048),
    "gte-base-en-v1.5": Shape("gte-base-en-v1.5", "bert", 8192),
    "gte-multilingual-base": Shape("gte-multilingual", "xlm-roberta", 8192),
    "gte-multilingual-reranker-base": Shape("gte-multilingual-reranker", "xlm-roberta", 8192),
    "snowflake-arctic-embed-m-v2.0": Shape("arctic-m-v2.0", "xlm-roberta", 8192),
    "gte-modernbert-base": Shape("modernbert-base", "modernbert", 8192),
    "stella_en_400M_v5": Shape("stella-400m", "bert", 512),
    "gte-large-en-v1.5": Shape("gte-large-en-v1.5", "bert", 8192),
    "bge-m3": Shape("bge-m3", "xlm-roberta", 8192),
}
ENCODE = """
import json, sys, warnings
import numpy as np
import bgert
warnings.simplefilter("ignore", bgert.TruncationWarning)
texts = ["a short text", "", "\u4eca\u5929", "word " * 10000]
folder, kind = sys.argv[1:]
if kind == "encoder":
    rows = bgert.Encoder(folder).encode(texts)
else:
    rows = bgert.Reranker(folder).score([("which?", text) for text in texts])[:, None]
assert len(rows) == len(texts) and np.isfinite(rows).all(), rows
assert np.abs(rows[0] - rows[3]).max() > 1e-4, rows
print(rows.shape[1])
"""


def measured(shape: Shape, tokenizers: Path, folder: Path) -> dict[str, Any]:
    """One shape, in a folder that is removed after it.

    Raises:
        RuntimeError: a step failed, with the end of what it said.
    """
    checkpoint, out, started = folder / "checkpoint", folder / "model", time.perf_counter()
    tokenizer = write_tokenizer(shape.tokenizer, tokenizers, folder / "tokenizer", shape.max_tokens)
    # The scale that training starts from: with more, float32 and float64 part by more than what is to be shown here.
    random_checkpoint.write(shape.geometry, tokenizer, checkpoint, seed=0, deviation=0.02, strong=1.0)
    # Published ones have it: without, sentence-transformers takes the limit that transformers has for their class.
    limit = {"max_seq_length": shape.max_tokens, "do_lower_case": False}
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps(limit))
    made = time.perf_counter() - started
    exported = _child("-m", "bgert", "export", checkpoint, "-o", out, "--target", "cpu")
    manifest = Manifest.read(out)
    encoded = _child("-c", ENCODE, out, manifest.kind)
    graph = manifest.graphs[0]
    parity = graph.parity
    if parity is None:
        raise RuntimeError("the graph was not verified")
    arch = manifest.architecture
    names = ("model_type", "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    return {
        "kind": manifest.kind,
        "geometry": [arch[name] for name in names],
        "max_tokens": manifest.max_tokens,
        "positions": manifest.positions,
        "columns": int(encoded["said"].split()[-1]),
        "inputs": parity.count,
        "corpus": parity.corpus,
        "reference": parity.reference,
        "engine": parity.engine,
        "max_abs_error": parity.max_abs_error,
        "min_cosine": parity.min_cosine,
        "calls": {call.call: call.max_abs_error for call in parity.calls},
        "graph_bytes": sum(entry.size for entry in graph.files),
        "checkpoint_seconds": round(made, 1),
        **{name: exported[name] for name in ("seconds", "cpu_seconds", "peak_rss_bytes")},
        "encode_peak_rss_bytes": encoded["peak_rss_bytes"],
    }


def _child(*arguments: str | Path) -> dict[str, Any]:
    """What a Python of its own said and took."""
    command = [sys.executable, *map(str, arguments)]
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        said.seek(0)
        words = said.read()
    if child.returncode:
        raise RuntimeError(f"exit status {child.returncode}: {words[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "said": words,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_bytes": usage.ru_maxrss * unit,
    }


def main() -> int:
    """Do what is not done; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", type=Path, required=True, help="folder of published vocabularies")
    parser.add_argument("--only", help=f"of {','.join(SHAPES)}; done again where they are there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, help="where checkpoints are made, up to 6 GB")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(SHAPES)
    if unknown := sorted(set(names) - set(SHAPES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    results = json.loads(args.results.read_text("utf-8")) if args.results.exists() else {"shapes": {}}
    failed = []
    for name in names:
        if not args.only and "error" not in results["shapes"].get(name, {"error": ""}):
            continue
        folder = Path(tempfile.mkdtemp(dir=args.work))
        try:
            entry = measured(SHAPES[name], args.tokenizers, folder)
        except (RuntimeError, OSError, bgert.BgertError) as error:
            entry = {"error": str(error)}
            failed.append(name)
        finally:
            shutil.rmtree(folder)
        entry |= {"bgert": bgert.__version__, "commit": machine.commit()}
        results |= {"kind": "true-shapes", "machine": machine.describe()}  # no benchmark's: `results.newest`
        results["shapes"] |= {name: entry}
        results["shapes"] = {key: results["shapes"][key] for key in SHAPES if key in results["shapes"]}
        written = args.results.with_suffix(".part")
        written.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        written.replace(args.results)  # whole, or the old one
        shown = ("max_abs_error", "min_cosine", "seconds", "cpu_seconds", "peak_rss_bytes", "error")
        print(name, {key: entry[key] for key in shown if key in entry}, flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
