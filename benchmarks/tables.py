"""Markdown of a result: the short tables of the README and the long ones of RESULTS.md."""

from __future__ import annotations

from typing import Any

from figures import best_peer, ours, precision, running, share, title

__all__ = ["detail", "headline", "readme"]

BASE = "sentence-transformers"  # what the README's speeds are relative to

SET_TITLES = {
    "short": "short queries",
    "passages": "passages",
    "mixed": "mixed",
    "long": "long",
    "chinese": "Chinese",
    "cranfield": "Cranfield",
}


def cold_start(entry: dict[str, Any]) -> str:
    """Measured with the trained model alone."""
    return f"{entry['cold_start_seconds']:.2f} s" if "cold_start_seconds" in entry else ""


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def headline(result: dict[str, Any], model_name: str = "minilm") -> str:
    """What a reader takes away, in a sentence: bgert beside sentence-transformers on mixed texts."""
    peers = running(result["models"][model_name])
    own, base = peers["bgert"], peers[BASE]
    less = "".join(
        f", {relative_speed(peers, entry):.1f} times in {precision(entry)}"
        for name, entry in peers.items()
        if ours(name) and name != "bgert"
    )
    sizes = [result["environments"][environment_of(name)]["install_bytes"] for name in ("bgert", BASE)]
    shares = (
        ("its disk", sizes[0] / sizes[1]),
        ("its memory", own["peak_rss_bytes"] / base["peak_rss_bytes"]),
        ("its time from start to first vector", own["cold_start_seconds"] / base["cold_start_seconds"]),
    )
    parts = ", ".join(f"1/{1 / part:.0f} of {name}" for name, part in shares)
    return (
        f"**{relative_speed(peers, own):.1f} times the speed of sentence-transformers on a CPU** in {precision(own)} "
        f"with the same vectors (cosine {own['quality']['cosine_mean']:.7f}){less}; {parts}."
    )


def relative_speed(peers: dict[str, Any], entry: dict[str, Any], texts: str = "mixed") -> float:
    """How many times the speed of sentence-transformers: both took turns with bgert, whose ratios are divided."""
    base = peers[BASE]["sets"][texts]["ratio"]["median"]
    ratio = entry["sets"][texts]["ratio"]["median"] if "ratio" in entry["sets"][texts] else 1.0
    return float(base / ratio)


def readme(result: dict[str, Any], model_name: str = "minilm") -> str:
    """Peers on mixed texts, the ratio to the best peer by model and set, the tokenizer, and where it comes from."""
    model = result["models"][model_name]
    lines = [*peers_table(result, model), ""]
    if failed := failures(model):
        lines += [*failed, ""]
    lines += [*matrix(result), ""]
    if result["tokenizer"] is not None:
        lines += [*tokenizer_table(result["tokenizer"]), ""]
    lines.append(provenance(result, model))
    return "\n".join(lines)


def peers_table(result: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """One row a peer."""
    with_search = any("ndcg_at_10" in entry["quality"] for entry in running(model).values())
    head = ["text to vectors", "precision", "tokens/s", "speed", "one text", "memory", "installed", "cold start"]
    head += ["cosine to PyTorch"] + ["nDCG@10"] * with_search
    rows, peers = [], running(model)
    for name, entry in peers.items():
        mixed, quality = entry["sets"]["mixed"], entry["quality"]
        single = entry["latency_ms"].get("batch_1")
        environment = result["environments"].get(environment_of(name), {})
        cells = [
            f"{title(name)} {version(result, name)}".strip(),
            precision(entry),
            f"{mixed['tokens_per_second']['median']:,.0f}",
            f"{relative_speed(peers, entry):.2f} x" if BASE in peers else "",
            f"{single['p50']:.2f} ms" if single else "",
            f"{entry['peak_rss_bytes'] / 1e6:,.0f} MB",
            megabytes(environment.get("install_bytes")),
            cold_start(entry),
            f"{quality['cosine_mean']:.7f}",
        ]
        cells += [f"{quality['ndcg_at_10']:.4f}"] * with_search if "ndcg_at_10" in quality else [""] * with_search
        rows.append([f"**{cell}**" if name == "bgert" and cell else cell for cell in cells])
    return table(head, rows)


def times(ratio: dict[str, float]) -> str:
    """A ratio with its spread."""
    return f"{ratio['median']:.2f} x ({ratio['min']:.2f} to {ratio['max']:.2f})"


def megabytes(size: int | None) -> str:
    """A size."""
    return "" if size is None else f"{size / 1e6:,.0f} MB"


def environment_of(name: str) -> str:
    """Key of a peer's environment."""
    from peer_list import PEERS

    return PEERS[name].environment if name in PEERS else name


# The package whose version is a peer's version.
PACKAGE = {
    "openvino-f32": "openvino",
    "openvino-default": "openvino",
    "flag-embedding": "FlagEmbedding",
    "infinity": "infinity-emb",
    "torch-compile": "transformers",
    "sentence-transformers-onnx": "sentence-transformers",
    "sentence-transformers-onnx-o3": "sentence-transformers",
    "sentence-transformers-openvino": "sentence-transformers",
}


def version(result: dict[str, Any], name: str) -> str:
    """What was installed of a peer; bgert's is the commit."""
    versions = result["environments"].get(environment_of(name), {}).get("versions", {})
    by_name = {package.lower().replace("_", "-"): found for package, found in versions.items()}
    return "" if ours(name) else str(by_name.get(PACKAGE.get(name, name).lower(), ""))


def failures(model: dict[str, Any]) -> list[str]:
    """Peers without figures and what they said."""
    return [
        f"- {title(name)} did not run: {' '.join(entry['error'].split())[:200]}"
        for name, entry in model["peers"].items()
        if "error" in entry
    ]


def matrix(result: dict[str, Any]) -> list[str]:
    """Bgert's fp32 speed over that of the fastest fp32 peer, and of the fastest that computes in lower precision."""
    models = {name: model for name, model in result["models"].items() if "bgert" in running(model)}
    names = [name for name in SET_TITLES if any(name in model["sets"] for model in models.values())]
    rows = []
    for name, model in models.items():
        cells = []
        for texts in names:
            exact, less = (best_peer(model, texts, exact=exact) for exact in (True, False))
            cell = f"**{exact.ratio:.2f}**" if exact else ""
            cells.append(cell + (f" ({less.ratio:.2f})" if less else ""))
        rows.append([name, *cells])
    head = [
        "speed of bgert fp32 over the fastest fp32 peer's (over the fastest's in lower precision)",
        *(SET_TITLES[name] for name in names),
    ]
    return table(head, rows)


def tokenizer_table(measured: dict[str, Any]) -> list[str]:
    """Bgert's tokenizer beside HF tokenizers."""
    rows = []
    for row in measured["results"]:
        own, ratio = row["bgert"], row["ratio"]
        rows.append(
            [
                row["name"],
                f"**{own['mb_per_s']:.0f}** ({own['first_pass_mb_per_s']:.0f})",
                f"{row['tokenizers']['mb_per_s']:.1f}",
                f"**{ratio['median']:.0f} x** ({ratio['min']:.0f} to {ratio['max']:.0f})",
                f"{row['texts_with_equal_ids']:,} of {row['texts']:,}",
            ]
        )
    head = ["text to token ids, one thread", "MB/s (first pass)", "HF tokenizers, MB/s", "against HF", "equal ids"]
    return table(head, rows)


def provenance(result: dict[str, Any], model: dict[str, Any]) -> str:
    """Machine, date, commit and protocol in one paragraph."""
    machine, mixed = result["machine"], model["sets"]["mixed"]
    bare = model["gemm"].get("fp32", {}).get("layer", {}).get("median")
    rate = f", bare fp32 products {bare:,.0f} GFLOP/s" if bare else ""
    return (
        f"*First table: all-MiniLM-L6-v2, {mixed['texts']:,} texts of mixed length ({mixed['tokens']:,} tokens), "
        f"median of {model['rounds']} rounds in turns, each peer in a process and an environment of its own; speed: "
        "sentence-transformers' is 1, by the medians of the ratios to bgert, which took turns with each; one text: a "
        "short query, median; installed: packages without pip; cold start: new process to first vector; cosine: mean "
        "over these texts (export's are odder and keep int8 further away: `bgert info` tells). Second table: median of "
        "the ratios by round; models but MiniLM have random weights. "
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])}){rate}, "
        f"Python {machine['python']}, {result['date']}, commit {result['commit']}. "
        "Everything else: [benchmarks/RESULTS.md](benchmarks/RESULTS.md).*"
    )


def detail(result: dict[str, Any], plot_names: list[str]) -> str:
    """RESULTS.md."""
    machine = result["machine"]
    lines = [
        "# Benchmark results",
        "",
        "Made by `python benchmarks/report.py` from the newest file of each kind in `benchmarks/results`.",
        "",
        f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])}), "
        f"{machine['memory_gib']} GiB, {machine['system']}, Python {machine['python']}, {result['date']}, commit "
        f"{result['commit']}.",
        "",
        "Peers of a model are alive together, sleep, and compute one at a time in an order that rotates from round to "
        "round. Tokens are counted once, by the checkpoint's tokenizer, without padding, after the cut at the model's "
        "length. `time` is what a peer takes over what bgert's fp32 takes, the median (least to largest) of the ratios "
        "by round. `share` is arithmetic per second over the bare matrix products' rate, measured in the same rounds; "
        "arithmetic is 2 x (4 H^2 + 2 H I) a token "
        "and layer, and 4 S H a token in attention; what a CLS model may skip in its last layer is not deducted.",
        "",
    ]
    for name, model in result["models"].items():
        lines += [f"## {name}", ""]
        if "error" in model:
            lines += [f"Not measured: {model['error']}", ""]
            continue
        lines += model_detail(name, model, plot_names)
    lines += ["## Environments", "", *environments_table(result), ""]
    return "\n".join(lines)


def model_detail(name: str, model: dict[str, Any], plot_names: list[str]) -> list[str]:
    """All of one model."""
    lines = [
        f"{model['kind']}, {model['layers']} layers of {model['hidden']}, {model['pooling']}, weights: "
        f"{model['weights']}; texts cut at {model['max_length']} tokens; {model['rounds']} rounds.",
        "",
    ]
    if model["gemm"]:
        rates = [
            f"{kind} {shapes['layer']['median']:,.0f} ({shapes['layer']['min']:,.0f} to {shapes['layer']['max']:,.0f})"
            for kind, shapes in model["gemm"].items()
        ]
        lines += [f"Bare products of a layer's shapes, GFLOP/s: {'; '.join(rates)}.", ""]
    lines += [f"![{plot}](plots/{plot})" for plot in plot_names if plot.endswith(f"-{name}.svg")] + [""]
    for texts, facts in model["sets"].items():
        lines += [
            f"**{SET_TITLES[texts]}**: {facts['texts']:,} texts, {facts['tokens']:,} tokens, median "
            f"{facts['median_tokens']}, longest {facts['longest']}",
            "",
        ]
        rows = []
        for peer, entry in running(model).items():
            found = entry["sets"][texts]
            speed, part = found["tokens_per_second"], share(model, entry, texts)
            rows.append(
                [
                    title(peer),
                    precision(entry),
                    f"{speed['median']:,.0f} ({speed['min']:,.0f} to {speed['max']:,.0f})",
                    f"{found['texts_per_second']['median']:,.1f}",
                    times(found["ratio"]) if "ratio" in found else "",
                    f"{part:.0%}" if part is not None else "",
                ]
            )
        lines += [*table(["peer", "precision", "tokens/s", "texts/s", "time", "share"], rows), ""]
    return [*lines, *latency_table(model), "", *other_table(model), "", *failures(model), ""]


def latency_table(model: dict[str, Any]) -> list[str]:
    """p50, p95 and p99 of calls."""
    points = list(dict.fromkeys(point for entry in running(model).values() for point in entry["latency_ms"]))
    titles = [point.replace("batch_", "batch ").replace("tokens_", "tokens: ") for point in points]
    rows = []
    for peer, entry in running(model).items():
        cells = []
        for point in points:
            found = entry["latency_ms"].get(point)
            cells.append(" / ".join(f"{found[key]:,.3g}" for key in ("p50", "p95", "p99")) if found else "")
        rows.append([title(peer), *cells])
    return table(["ms, p50 / p95 / p99", *titles], rows)


def other_table(model: dict[str, Any]) -> list[str]:
    """Memory, loading, what was found, and what each peer was told."""
    rows = []
    for peer, entry in running(model).items():
        quality = ", ".join(f"{key} {value:.9g}" for key, value in entry["quality"].items() if key != "texts")
        settings = "; ".join(
            f"{mode}: " + ", ".join(f"{key} {value}" for key, value in told.items() if key != "mode")
            for mode, told in entry["settings"].items()
        )
        rows.append(
            [
                title(peer),
                f"{entry['peak_rss_bytes'] / 1e6:,.0f} MB",
                f"{entry['load_seconds']:.2f} s",
                cold_start(entry),
                f"{entry.get('idle_cpu', 0):.1%}",
                quality,
                settings,
            ]
        )
    head = ["peer", "peak memory", "load", "cold start", "CPU while others run", "against PyTorch", "settings"]
    return table(head, rows)


def environments_table(result: dict[str, Any]) -> list[str]:
    """What was installed, how large it is and how long it took."""
    rows = []
    for name, environment in sorted(result["environments"].items()):
        seconds = environment["install_seconds"]
        wheel = ", of a built wheel" if name == "bgert" else ""
        cold = [
            entry["cold_start_seconds"]
            for model in result["models"].values()
            for peer, entry in running(model).items()
            if environment_of(peer) == name and "cold_start_seconds" in entry
        ][:1]
        rows.append(
            [
                name,
                megabytes(environment["install_bytes"]),
                f"{seconds:.0f} s{wheel}" if seconds is not None else "",
                f"{seconds + cold[0]:.0f} s{wheel}" if seconds is not None and cold else "",
                ", ".join(f"{package} {found}" for package, found in sorted(environment["versions"].items())),
            ]
        )
    return table(["environment", "size", "pip install", "pip install to first vector", "packages"], rows)
