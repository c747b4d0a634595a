"""What a result of gpu.py becomes: the README's GPU table, a section of RESULTS.md and its plots."""

from __future__ import annotations

from typing import Any

from bgert.latency.svg import Line, lines
from tables import table

__all__ = ["detail", "plots", "readme"]

BASE_SHAPE = "bge-base shape"
SINGLE = {
    "cuda_graphs": "bgert, from ids",
    "plain": "bgert, from ids, without CUDA graphs",
    "text": "bgert, from text",
    "torch_eager": "transformers, eager, inputs on the device",
    "torch_sdpa": "transformers, SDPA, inputs on the device",
}


def readme(result: dict[str, Any]) -> str:
    """Bgert beside what users have, a row each, and where the figures come from."""
    text, trained, rerankers, latency = (result[name] for name in ("text", "trained", "rerankers", "latency"))
    compiled = result["torch_compile"]
    own = kernel_row(result, compiled["budget"], compiled["length"])
    rows = [
        speed("all-MiniLM-L6-v2, text to vectors, tokens/s", trained, "tokens_per_second", "sentence_transformers"),
        speed(f"{BASE_SHAPE}, text to vectors, tokens/s", text["mixed"], "tokens_per_second", "sentence_transformers"),
        speed(
            f"{BASE_SHAPE}, the same, 128 tokens each", text["uniform"], "tokens_per_second", "sentence_transformers"
        ),
        speed("reranker of that shape, text to scores, pairs/s", rerankers, "pairs_per_second", "cross_encoder"),
        [
            f"{BASE_SHAPE}, the model alone, {compiled['budget'] // compiled['length']} x {compiled['length']} tokens",
            f"**{own['ms']:.2f} ms**",
            f"torch.compile {compiled['ms']:.2f} ms",
            f"{compiled['ms'] / own['ms']:.2f} x",
        ],
        [
            f"{BASE_SHAPE}, one text of 32 tokens, ids to vector",
            f"**{latency['cuda_graphs']['p50_ms']:.2f} ms**",
            f"transformers, SDPA {latency['torch_sdpa']['p50_ms']:.2f} ms",
            f"{latency['torch_sdpa']['p50_ms'] / latency['cuda_graphs']['p50_ms']:.1f} x",
        ],
    ]
    return "\n".join([*table(["fp16 on one GPU", "bgert", "beside it, fp16", "speed"], rows), "", provenance(result)])


def speed(name: str, found: dict[str, Any], key: str, peer: str) -> list[str]:
    """A row of rates; no peer's where its settings were not kept."""
    title = {"sentence_transformers": "sentence-transformers", "cross_encoder": "CrossEncoder"}[peer]
    if found.get("peer_settings", {}) is None:
        return [name, f"**{found[key]:,.0f}**", "", ""]
    return [name, f"**{found[key]:,.0f}**", f"{title} {found[peer]:,.0f}", f"{found[key] / found[peer]:.1f} x"]


def kernel_row(result: dict[str, Any], budget: int, length: int) -> dict[str, Any]:
    """Bgert's row of the model alone."""
    rows: list[dict[str, Any]] = result["kernels"]["rows"]
    return next(row for row in rows if (row["budget"], row["length"]) == (budget, length))


def provenance(result: dict[str, Any]) -> str:
    """GPU, versions, date and commit, and what was equal."""
    parity, trained = result["parity"], result["trained"]
    kept = trained["peer_settings"] is not None
    unknown = "" if kept else "MiniLM's peer ran with settings that were not kept: no ratio. "
    return (
        f"*Against the float32 checkpoint in PyTorch: {BASE_SHAPE}, {parity['encoder']['texts']:,} texts, minimum "
        f"cosine {parity['encoder']['min_cosine']:.6f}; all-MiniLM-L6-v2, {trained['texts']:,} texts, "
        f"{trained['min_cosine']:.6f}; reranker, {parity['reranker']['queries']} queries, logits within "
        f"{parity['reranker']['max_logit_error']:.4f}. Models but MiniLM have random weights. The model "
        f"alone: bgert with copies, PyTorch with its inputs on the device. {unknown}{machine(result)} "
        "More: [benchmarks/RESULTS.md](benchmarks/RESULTS.md), [docs/CUDA.md](docs/CUDA.md).*"
    )


def machine(result: dict[str, Any]) -> str:
    """GPU, driver, versions, date and commit."""
    found = result["machine"]
    name, driver, clock, power = found["gpu"].split(", ")
    return (
        f"{name} ({clock}, {power.removesuffix('.00 W')} W), driver {driver}, {found['cores']} CPU cores, "
        f"onnxruntime-gpu {found['onnxruntime']}, torch {found['torch']}, Python {found['python']}, {result['date']}, "
        f"commit {result['commit']}."
    ).replace(" W W", " W")


def plots(result: dict[str, Any]) -> dict[str, str]:
    """SVG by file name."""
    rows = result["kernels"]["rows"]
    budget = result["torch_kernels"]["rows"][0]["budget"]
    series = [
        Line(f"bgert, {size:,} tokens", points(row for row in rows if row["budget"] == size), ours=size == budget)
        for size in sorted({row["budget"] for row in rows})
    ]
    series += [
        Line(
            f"transformers, {variant}",
            points(row for row in result["torch_kernels"]["rows"] if row["variant"] == variant),
        )
        for variant in dict.fromkeys(row["variant"] for row in result["torch_kernels"]["rows"])
    ]
    shapes = [Line(name, points(entry["rows"])) for name, entry in geometries(result).items()]
    return {
        "gpu-kernels.svg": lines("bge-base shape: the model alone", "tokens a text", "tokens/s", series, log_y=False),
        "gpu-geometries.svg": lines("bgert: the model alone", "tokens a text", "tokens/s", shapes, log_y=True),
    }


def points(rows: Any) -> list[tuple[float, float]]:
    """Length and tokens a second."""
    return [(row["length"], row["tokens_per_second"]) for row in rows]


def geometries(result: dict[str, Any]) -> dict[str, Any]:
    """The shapes of the stage, by name."""
    return {name: entry for name, entry in result["geometries"].items() if isinstance(entry, dict)}


def detail(result: dict[str, Any]) -> str:
    """The part of RESULTS.md."""
    lengths = sorted({row["length"] for row in result["kernels"]["rows"]})
    budgets = sorted({row["budget"] for row in result["kernels"]["rows"]})
    alone = [
        [f"bgert, {budget:,} tokens a batch", *(rate(kernel_row(result, budget, length)) for length in lengths)]
        for budget in budgets
    ]
    for variant in dict.fromkeys(row["variant"] for row in result["torch_kernels"]["rows"]):
        found = {row["length"]: row for row in result["torch_kernels"]["rows"] if row["variant"] == variant}
        budget = next(iter(found.values()))["budget"]
        title = f"transformers, {variant}, {budget:,} tokens a batch"
        alone.append([title, *(rate(found[length]) if length in found else "" for length in lengths)])
    text = [
        [
            name,
            f"{found['texts']:,}",
            f"{found['tokens']:,}",
            f"{found['tokens_per_second']:,}",
            f"{found['sentence_transformers']:,}",
            f"{found['gpu_idle_share']:.1%}",
        ]
        for name, found in ((name, result["text"][name]) for name in ("mixed", "uniform"))
    ]
    single = [
        [name, *(f"{found[key]:.3f}" for key in ("p50_ms", "p99_ms", "min_ms"))]
        for name, found in [
            *((SINGLE[name], found) for name, found in result["latency"].items() if name in SINGLE),
            *((f"bgert, {name} shape", entry["latency_32_tokens"]) for name, entry in geometries(result).items()),
        ]
    ]
    shapes = [[name, *(rate(row) for row in entry["rows"])] for name, entry in geometries(result).items()]
    across = [f"{row['length']} tokens" for row in next(iter(geometries(result).values()))["rows"]]
    return "\n".join(
        [
            "## On a GPU",
            "",
            machine(result),
            "",
            "fp16. Shares are arithmetic per second over the rate of square fp16 products in the same run (here "
            f"{result['matmul']['best']:,.0f} TFLOP/s; the other shapes have a run of their own where the newest file "
            "of kind `gpu` lacks them). bgert's arithmetic is that of one token a text after the last attention, since "
            "no more is computed; its times count copies, PyTorch's inputs are on the device already.",
            "",
            "![gpu-kernels.svg](plots/gpu-kernels.svg)",
            "![gpu-geometries.svg](plots/gpu-geometries.svg)",
            "",
            *table([f"{BASE_SHAPE}, tokens/s (share)", *(f"{length} tokens" for length in lengths)], alone),
            "",
            *table(["other shapes, bgert, tokens/s (share)", *across], shapes),
            "",
            *table(["text to vectors", "texts", "tokens", "bgert", "sentence-transformers", "GPU idle"], text),
            "",
            *table(["one text of 32 tokens, ms", "p50", "p99", "least"], single),
            "",
            growth(result),
            "",
        ]
    )


def rate(row: dict[str, Any]) -> str:
    """Tokens a second with the share."""
    return f"{row['tokens_per_second']:,} ({row['mfu']:.0%})"


def growth(result: dict[str, Any]) -> str:
    """Memory, kernels of attention."""
    found, attention = result["growth"], result["flash"]["kernels"]
    return (
        f"{found['batches']:,} mixed batches: device memory grew by {found['device_bytes']:,} bytes, the process's by "
        f"{found['host_bytes']:,}. Kernels of attention: {', '.join(f'{name} {n:,}' for name, n in attention.items())}."
    )
