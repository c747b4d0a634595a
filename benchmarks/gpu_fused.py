"""Stages of the GPU benchmark on bgert's own CUDA operators, targets `cuda-fused` and `cuda-fused-erf`.

They run beside the graph of ONNX Runtime's operators. On a CPU, which has neither, the CPU's graph is measured.
Each takes the Bench and returns what the JSON keeps under its name; units are in the keys, shares are of 1.
"""

from __future__ import annotations

import os
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import gpu_peers
from bgert import Encoder, Reranker
from bgert.evaluation.sample_texts import sample_texts
from bgert.model_folder import Manifest
from bgert_export import export
from gpu_bench import MAX_LOGIT_ERROR, MEAN_COSINE, MIN_COSINE
from gpu_measure import batch_of, clocked, flops, kernel_seconds, percentiles

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_bench import Bench

TARGETS = ("cuda-fused", "cuda-fused-erf")
QUERIES = "BGERT_CUDA_ATTENTION_QUERIES"
"""Queries of a block of attention: which is faster decides its threshold (runtime/src/cuda_ops/operators.cpp)."""


def exported(bench: Bench, checkpoint: Path, name: str, target: str) -> Path:
    """A model folder with one graph; on a CPU with the CPU's beside it, to measure."""
    folder = bench.work / f"{name}-{target}"
    shutil.rmtree(folder, ignore_errors=True)
    export(checkpoint, folder, targets=[target] if bench.on_gpu else ["cpu", target], verify=False)
    return folder


def stage_fused_parity(bench: Bench) -> dict[str, Any]:
    """Vectors of both GELUs, and logits, against the float32 checkpoint in PyTorch; what opening takes."""
    texts = sample_texts(20 if bench.rehearsal else 500)
    peer = gpu_peers.TorchModel(
        bench.checkpoint("encoder"), "encoder", bench.torch_device, half=False, attention="eager", pooling="cls"
    )
    found: dict[str, Any] = {}
    for target in TARGETS:
        folder = exported(bench, bench.checkpoint("encoder"), "fused", target)
        begun = time.perf_counter()
        encoder = Encoder(folder, device=bench.device)
        opened = time.perf_counter() - begun
        batch = encoder.tokenizer.encode_batch(texts)
        expected = peer.rows(np.split(batch.ids, batch.cu_seqlens[1:-1]))
        cosines = (np.asarray(encoder.encode(texts), np.float64) * expected).sum(1)
        found[target] = {
            "texts": len(texts), "open_seconds": round(opened, 2), "min_cosine": float(cosines.min()),
            "mean_cosine": float(cosines.mean()),
            "passed": bool(cosines.min() >= MIN_COSINE and cosines.mean() >= MEAN_COSINE),
        }  # fmt: skip
    if bench.rerankers:
        reranker = Reranker(
            exported(bench, bench.checkpoint("reranker"), "fused-reranker", TARGETS[0]), device=bench.device
        )
        other = Reranker(bench.folder("reranker"), device=bench.device)
        pairs = [(texts[0], text[:1000]) for text in texts]
        worst = float(np.abs(np.asarray(reranker.score(pairs)) - np.asarray(other.score(pairs))).max())
        found["reranker"] = {"pairs": len(pairs), "max_logit_difference": worst, "passed": worst <= MAX_LOGIT_ERROR}
    found["passed"] = all(entry["passed"] for entry in found.values())
    return found


def stage_fused_kernels(bench: Bench) -> dict[str, Any]:
    """The model alone: ONNX Runtime's operators, bgert's, both tiles of attention, exact GELU; one short text."""
    best = bench.results["matmul"]["best"] * 1e12
    vocabulary = Manifest.read(bench.folder("encoder")).architecture["vocab_size"]
    folders = {
        "onnxruntime": bench.folder("encoder"),
        "fused": bench.work / "fused-cuda-fused",
        "fused, erf": bench.work / "fused-cuda-fused-erf",
    }
    budget, lengths = (256, (16, 64)) if bench.rehearsal else (16384, (32, 128, 256, 512))
    rows, latency = [], {}
    for name, folder in folders.items():
        backend = bench.backend_of(folder, token_budget=budget)
        times = clocked(partial(backend.run, batch_of([32], vocabulary)), seconds=bench.seconds(0.5), least=20)
        latency[name] = percentiles(times)
        for queries in (None, "64", "128") if name == "fused" else (None,):
            variant = name if queries is None else f"{name}, {queries} queries"
            if queries is not None:
                os.environ[QUERIES] = queries  # the operators look it up in each run
            try:
                measured = [row_of(bench, folder, backend, budget, length, best) for length in lengths]
            finally:
                os.environ.pop(QUERIES, None)
            rows += [{"variant": variant} | row for row in measured]
    return {"rows": rows, "latency_32_tokens": latency}


def row_of(bench: Bench, folder: Path, backend: Any, budget: int, length: int, best: float) -> dict[str, Any]:
    """A batch of equal texts, on the device."""
    architecture = Manifest.read(folder).architecture
    texts = [length] * (budget // length)
    seconds = kernel_seconds(backend, batch_of(texts, architecture["vocab_size"]), seconds=bench.seconds(0.3))
    return {
        "budget": budget, "length": length, "ms": round(1e3 * seconds, 4),
        "tokens_per_second": round(sum(texts) / seconds),
        "mfu": round(flops(architecture, texts, cls=True) / seconds / best, 4),
    }  # fmt: skip


def stage_fused_shapes(bench: Bench) -> dict[str, Any]:
    """Other shapes, whose checkpoints the stage `geometries` wrote; and mixed texts to vectors on the main one."""
    best = bench.results["matmul"]["best"] * 1e12
    shapes = {"minilm": 256} if bench.rehearsal else {"bge-small": 32768, "bge-large": 16384}
    found: dict[str, Any] = {}
    for name, budget in shapes.items():
        checkpoint = bench.work / f"geometry-{name}-checkpoint"
        folder = exported(bench, checkpoint, f"fused-{name}", TARGETS[0])
        backend = bench.backend_of(folder, token_budget=budget)
        lengths = (16,) if bench.rehearsal else (128, 512)
        found[name] = {"rows": [row_of(bench, folder, backend, budget, length, best) for length in lengths]}
    texts = sample_texts(50 if bench.rehearsal else 10_000)
    encoder = Encoder(bench.work / "fused-cuda-fused", device=bench.device)
    encoder.encode(texts[:64], show_progress=False)
    seconds, tokens = [], 0
    for _ in range(1 if bench.rehearsal else 3):
        begun = time.perf_counter()
        result = encoder.encode(texts, show_progress=False)
        seconds.append(time.perf_counter() - begun)
        tokens = result.info.tokens if result.info else 0
    one = "how do i copy a folder with everything in it to another place and keep its dates"
    found["text"] = {
        "mixed_tokens_per_second": round(tokens / min(seconds)),
        "latency": percentiles(clocked(lambda: encoder.encode(one), seconds=bench.seconds(1), least=20)),
    }
    return found
