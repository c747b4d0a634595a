"""The three plots of a result."""

from __future__ import annotations

from typing import Any

from bgert.latency.svg import Bar, Line, bars, lines
from figures import ours, precision, running, share, title, tokens_per_text

__all__ = ["plots"]

# The mixed set has no one length.
BY_LENGTH = ("short", "passages", "long")
LEAST_DIFFERENCE = 1e-7
"""Of a cosine in float32; what is nearer is equal."""
BATCHES = {"batch_1": 1, "batch_32": 32, "batch_1000": 1000}


def plots(result: dict[str, Any]) -> dict[str, str]:
    """SVG by file name."""
    models = {name: model for name, model in result["models"].items() if running(model)}
    made = {"roofline.svg": roofline(models)}
    for name, model in models.items():
        if model["kind"] == "encoder":
            made[f"throughput-{name}.svg"] = throughput(name, model)
            made[f"latency-{name}.svg"] = latency(name, model)
    if "minilm" in models:  # the others have random weights, which tell nothing of quality
        made["quality-minilm.svg"] = quality("minilm", models["minilm"])
    return made


def label(name: str, entry: dict[str, Any]) -> str:
    """A peer with its precision where that is not fp32."""
    words = title(name).removesuffix(", its own precision").removesuffix(", f32")
    return words if precision(entry) in ("fp32", *words.split()) else f"{words}, {precision(entry)}"


def throughput(name: str, model: dict[str, Any]) -> str:
    """Tokens per second against the mean length of short, passages and long."""
    series = [
        Line(
            label(peer, entry),
            [
                (round(tokens_per_text(model, texts)), entry["sets"][texts]["tokens_per_second"]["median"])
                for texts in BY_LENGTH
                if texts in entry["sets"]
            ],
            ours(peer),
        )
        for peer, entry in running(model).items()
    ]
    return lines(f"{name}: throughput against length", "tokens a text", "tokens/s", series, log_y=False)


def latency(name: str, model: dict[str, Any]) -> str:
    """Median time of a call against the number of texts in it."""
    series = [
        Line(
            label(peer, entry),
            [(size, entry["latency_ms"][key]["p50"]) for key, size in BATCHES.items() if key in entry["latency_ms"]],
            ours(peer),
        )
        for peer, entry in running(model).items()
    ]
    return lines(f"{name}: latency against batch", "short texts a call", "ms, median", series, log_y=True)


def quality(name: str, model: dict[str, Any]) -> str:
    """How far the vectors are from PyTorch's, against tokens per second on mixed texts: a point a library."""
    series = [
        Line(
            label(peer, entry),
            [
                (
                    round(entry["sets"]["mixed"]["tokens_per_second"]["median"]),
                    max(1 - entry["quality"]["cosine_mean"], LEAST_DIFFERENCE),
                )
            ],
            ours(peer),
        )
        for peer, entry in running(model).items()
        if "cosine_mean" in entry.get("quality", {}) and "mixed" in entry["sets"]
    ]
    return lines(f"{name}: difference from PyTorch against speed", "tokens/s", "1 - cosine", series, log_y=True)


def roofline(models: dict[str, Any]) -> str:
    """Each peer's arithmetic per second as a share of the machine's bare products of the same precision."""
    entries = [
        Bar(name, label(peer, entry), value, ours(peer))
        for name, model in models.items()
        for peer, entry in running(model).items()
        if (value := share(model, entry, "mixed")) is not None
    ]
    return bars(
        "Share of the bare GEMM rate, mixed texts",
        "share",
        entries,
        reference=1.0,
        reference_label="bare matrix products",
    )
