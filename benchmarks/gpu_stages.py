"""Stages of the GPU benchmark on the main encoder and reranker: right, fast, quick to answer, flat in memory.

Each takes the Bench and returns what the JSON keeps under its name; units are in the keys, shares are of 1.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gpu_peers
import random_checkpoint
from bgert import Encoder, Reranker
from bgert.backends.cuda.backend import OnnxCudaBackend
from bgert.backends.onnxruntime_import import import_onnxruntime
from bgert.cpu_count import available_cpus
from bgert.evaluation.sample_texts import sample_texts
from bgert.model_folder import Manifest
from bgert_export import export
from gpu_bench import MAX_LOGIT_ERROR, MEAN_COSINE, MIN_COSINE
from gpu_measure import BusyTime, batch_of, clocked, flops, kernel_seconds, percentiles, random_batches

if TYPE_CHECKING:
    from gpu_bench import Bench


def stage_machine(bench: Bench) -> dict[str, Any]:
    """What runs."""
    found: dict[str, Any] = {"python": platform.python_version(), "cores": available_cpus(), "device": bench.device}
    found |= gpu_peers.torch_versions() | {"onnxruntime": import_onnxruntime().__version__}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        found["gpu"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    return found


def stage_export(bench: Bench) -> dict[str, Any]:
    """Checkpoints of true shapes and their model folders."""
    found = {}
    for kind, name in bench.names().items():
        for path in (bench.checkpoint(kind), bench.folder(kind)):
            shutil.rmtree(path, ignore_errors=True)
        begun = time.perf_counter()
        random_checkpoint.write(name, bench.tokenizer, bench.checkpoint(kind), seed=1)
        manifest = export(bench.checkpoint(kind), bench.folder(kind), targets=["cpu", "cuda"], verify=False)
        size = sum(entry.size for entry in manifest.files()) // 10**6
        found[name] = {"seconds": round(time.perf_counter() - begun, 2), "megabytes": size}
    return found


def stage_flash(bench: Bench) -> dict[str, Any]:
    """Which attention kernel each node takes, as ONNX Runtime itself prints it in a process of its own."""
    if not bench.on_gpu:
        return {"skipped": "the CPU has no such choice"}
    code = (
        "import sys, bgert; e = bgert.Encoder(sys.argv[1], device=sys.argv[2]);"
        "e.encode(['a word ' * n for n in (1, 7, 60, 200)] * 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bench.folder("encoder")), bench.device],
        env=os.environ | {"ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    chosen: dict[str, int] = {}
    for name in re.findall(r"SdpaKernel=(\w+)", done.stdout + done.stderr):
        chosen[name] = chosen.get(name, 0) + 1
    passed = done.returncode == 0 and set(chosen) == {"FLASH_ATTENTION"}
    return {"passed": passed, "kernels": chosen} | ({} if passed else {"error": done.stderr[-500:]})


def stage_parity(bench: Bench) -> dict[str, Any]:
    """Vectors and logits against the float32 checkpoint in PyTorch, whose ids come from the same tokenizer."""
    texts = sample_texts(40 if bench.rehearsal else 1000)
    found: dict[str, Any] = {}
    encoder = Encoder(bench.folder("encoder"), device=bench.device)
    peer = gpu_peers.TorchModel(
        bench.checkpoint("encoder"), "encoder", bench.torch_device, half=False, attention="eager", pooling="cls"
    )
    batch = encoder.tokenizer.encode_batch(texts)
    expected = peer.rows(np.split(batch.ids, batch.cu_seqlens[1:-1]))
    cosines = (np.asarray(encoder.encode(texts), np.float64) * expected).sum(1)
    found["encoder"] = {
        "texts": len(texts),
        "min_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "passed": bool(cosines.min() >= MIN_COSINE and cosines.mean() >= MEAN_COSINE),
    }
    if bench.rerankers:
        found["reranker"] = _reranker_parity(bench, texts)
    found["passed"] = all(entry["passed"] for entry in found.values())
    return found


def _reranker_parity(bench: Bench, texts: list[str]) -> dict[str, Any]:
    reranker = Reranker(bench.folder("reranker"), device=bench.device)
    peer = gpu_peers.TorchModel(
        bench.checkpoint("reranker"), "reranker", bench.torch_device, half=False, attention="eager", pooling=None
    )
    worst, same = 0.0, 0
    count = 3 if bench.rehearsal else 20
    texts = [text[:1000] for text in texts]
    queries = texts[:: len(texts) // count][:count]
    for query in queries:
        documents = texts[:count]
        batch = reranker.tokenizer.encode_batch([query] * len(documents), documents)
        ids, types = (np.split(array, batch.cu_seqlens[1:-1]) for array in (batch.ids, batch.type_ids))
        expected = peer.rows(ids, types)[:, 0].astype(np.float64)
        scores = np.asarray(reranker.score([(query, document) for document in documents]), np.float64)
        worst = max(worst, float(np.abs(scores - expected).max()))
        ordered = expected[np.argsort(-scores, kind="stable")]
        same += bool((ordered - np.minimum.accumulate(ordered) <= MAX_LOGIT_ERROR).all())
    passed = worst <= MAX_LOGIT_ERROR and same == len(queries)
    return {"queries": len(queries), "max_logit_error": worst, "same_order": same, "passed": passed}


def stage_matmul(bench: Bench) -> dict[str, Any]:
    """The rate that everything else is measured against."""
    rates = gpu_peers.matmul_rate(bench.torch_device, bench.half, seconds=bench.seconds(0.5))
    return {"tflops": rates, "best": max(rates.values())}


def stage_kernels(bench: Bench) -> dict[str, Any]:
    """Tokens per second of the model alone, by length and token budget, and its share of the matmul rate."""
    architecture = Manifest.read(bench.folder("encoder")).architecture
    best = bench.results["matmul"]["best"] * 1e12
    budgets, lengths = (
        ([256, 512], [16, 64]) if bench.rehearsal else ([4096, 8192, 16384, 32768], [16, 32, 64, 128, 256, 512])
    )
    rows = []
    for budget in budgets:
        backend = bench.backend(token_budget=budget) if bench.on_gpu else bench.backend()
        for length in lengths:
            texts = [length] * (budget // length)
            seconds = kernel_seconds(backend, batch_of(texts, architecture["vocab_size"]), seconds=bench.seconds(0.4))
            work = flops(architecture, texts, cls=True)
            rows.append(
                {
                    "budget": budget, "length": length, "ms": round(1e3 * seconds, 4),
                    "tokens_per_second": round(sum(texts) / seconds), "mfu": round(work / seconds / best, 4),
                }
            )  # fmt: skip
    return {"rows": rows}


def stage_torch_kernels(bench: Bench) -> dict[str, Any]:
    """The same batches in PyTorch, inputs on the device already."""
    architecture = Manifest.read(bench.folder("encoder")).architecture
    best = bench.results["matmul"]["best"] * 1e12
    budgets, lengths = ([256], [16, 64]) if bench.rehearsal else ([16384], [16, 32, 64, 128, 256, 512])
    rows = []
    for attention in ("eager", "sdpa"):
        peer = bench.torch_encoder(attention)
        for budget in budgets:
            for length in lengths:
                texts = [length] * (budget // length)
                inputs = peer.padded([np.full(length, 7, np.int32)] * len(texts))
                seconds = peer.seconds(inputs, seconds=bench.seconds(0.3))
                rows.append(
                    {
                        "variant": attention, "budget": budget, "length": length, "ms": round(1e3 * seconds, 4),
                        "tokens_per_second": round(sum(texts) / seconds),
                        "mfu": round(flops(architecture, texts, cls=False) / seconds / best, 4),
                    }
                )  # fmt: skip
    return {"rows": rows}


def stage_latency(bench: Bench) -> dict[str, Any]:
    """One text of 32 tokens, one at a time: from ids to vector, and from text to vector."""
    batch = batch_of([32], 30000)
    found: dict[str, Any] = {}
    for name, graphs in (("cuda_graphs", True), ("plain", False)):
        backend = bench.backend(graphs=graphs) if bench.on_gpu else bench.backend()
        found[name] = percentiles(clocked(partial(backend.run, batch), seconds=bench.seconds(1), least=50))
    encoder = Encoder(bench.folder("encoder"), device=bench.device)
    text = "how do i copy a folder with everything in it to another place and keep its dates"
    found["text"] = percentiles(clocked(lambda: encoder.encode(text), seconds=bench.seconds(1), least=50))
    for attention in ("eager", "sdpa"):
        peer = bench.torch_encoder(attention)
        inputs = peer.padded([np.full(32, 7, np.int32)])
        found[f"torch_{attention}"] = percentiles(peer.latency(inputs, seconds=bench.seconds(1)))
    return found


def stage_text(bench: Bench) -> dict[str, Any]:
    """Text to vectors, mixed and uniform, in turns with sentence-transformers; the share of time the GPU waits."""
    encoder = Encoder(bench.folder("encoder"), device=bench.device)
    peer = gpu_peers.sentence_transformer(
        bench.checkpoint("encoder"), bench.torch_device, bench.half, encoder.max_length
    )
    sizes = {"mixed": 100, "uniform": 64} if bench.rehearsal else {"mixed": 8_000, "uniform": 8_192}
    base = sample_texts(sizes["mixed"])
    corpora = {
        "mixed": [base[n % len(base)] for n in range(sizes["mixed"])],
        "uniform": ["a word of text and more " * 21] * sizes["uniform"],
    }
    found: dict[str, Any] = {}
    for name, texts in corpora.items():
        ours, theirs, idle = [], [], []
        encoder.encode(texts[:64], show_progress=False)
        peer.encode(texts[:64], batch_size=64)
        tokens = 0
        for _ in range(1 if bench.rehearsal else 2):
            begun = time.perf_counter()
            backend = encoder._runner.backend
            if isinstance(backend, OnnxCudaBackend):
                with BusyTime(backend) as clock:
                    result = encoder.encode(texts, show_progress=False)
                ours.append(time.perf_counter() - begun)
                idle.append(1 - clock.busy_seconds / ours[-1])
            else:
                result = encoder.encode(texts, show_progress=False)
                ours.append(time.perf_counter() - begun)
            tokens = result.info.tokens if result.info else 0
            begun = time.perf_counter()
            peer.encode(texts, batch_size=128, show_progress_bar=False)
            theirs.append(time.perf_counter() - begun)
        found[name] = {
            "texts": len(texts), "tokens": tokens, "tokens_per_second": round(tokens / min(ours)),
            "sentence_transformers": round(tokens / min(theirs)), "speedup": round(min(theirs) / min(ours), 3),
            "gpu_idle_share": round(min(idle), 4) if idle else None,
        }  # fmt: skip
    return found


def stage_growth(bench: Bench) -> dict[str, Any]:
    """Memory of device and process over 10,000 mixed batches, after the first 500."""
    backend = bench.backend()
    total, settled = (60, 20) if bench.rehearsal else (10_000, 500)
    batches = random_batches(200, backend.info.token_budget, 512 if not bench.rehearsal else 100, 30000, seed=3)

    def memory() -> tuple[int, int]:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        if not isinstance(backend, OnnxCudaBackend):
            return 0, resident
        free, size = backend._launcher.submit(backend._session._cuda.memory_info).result()
        return size - free, resident

    before = (0, 0)
    for number in range(total):
        rows = backend.run(batches[number % len(batches)])
        if not np.isfinite(rows).all():
            raise ArithmeticError(f"batch {number} gave NaN or infinity")
        if number == settled:
            before = memory()
    after = memory()
    device, host = after[0] - before[0], after[1] - before[1]
    return {
        "batches": total,
        "device_bytes": device,
        "host_bytes": host,
        "passed": bool(device <= 0 and host < 64 << 20),
    }
