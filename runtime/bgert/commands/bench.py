"""`bgert bench`: text to vectors, in turns with sentence-transformers where a checkpoint is named, or single calls."""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.commands import latency
from bgert.commands.options import bars, engine_options, quiet_option
from bgert.cpu_count import threads_of
from bgert.encoder import Encoder
from bgert.errors import EngineNotInstalledError, InvalidOptionError, install_extra
from bgert.evaluation.sample_texts import sample_texts
from bgert.progress import progress_bar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from bgert.option_types import Device, Mode, Precision

__all__ = ["add_options", "bench", "report", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id")
    parser.add_argument("--against", metavar="SOURCE", help="checkpoint for sentence-transformers to run in turns")
    parser.add_argument("--texts", type=int, metavar="N", help="texts a round (default: 1500)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default: 5)")
    parser.add_argument(
        "--latency", action="store_true", help="time single calls: percentiles, cold start, memory, energy"
    )
    parser.add_argument(
        "--mode",
        choices=("throughput", "latency"),
        help="one batch a core, or all cores on one (default: latency with --latency, else throughput)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    quiet_option(parser)
    engine_options(parser)
    latency.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    engine: dict[str, Any] = {
        "device": args.device,
        "precision": args.precision,
        "threads": args.threads,
        "mode": args.mode or ("latency" if args.latency else "throughput"),
        "show_progress": bars(args),
    }
    of_calls = {name: getattr(args, name) for name in latency.OPTIONS}
    of_rounds = {name: getattr(args, name) for name in ("against", "texts", "rounds")}
    for name, value in (of_rounds if args.latency else of_calls).items():
        if value is not None:
            option = name.replace("_", "-")
            raise InvalidOptionError(f"--{option} {'is not for' if args.latency else 'needs'} --latency")
    if args.latency:
        result = latency.run(args, engine)
    else:
        result = bench(
            args.folder,
            against=args.against,
            texts=1500 if args.texts is None else args.texts,
            rounds=5 if args.rounds is None else args.rounds,
            **engine,
        )
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(latency.report(result) if args.latency else report(result))
    return 0


def bench(
    folder: str | Path,
    *,
    against: str | None,
    texts: int,
    rounds: int,
    device: Device,
    precision: Precision,
    threads: int | None,
    mode: Mode = "throughput",
    show_progress: bool = False,
) -> dict[str, Any]:
    """Time `encode` on docstrings of the standard library; one warm-up and `rounds` timed rounds an engine.

    Engines take turns within a round, so that a slow minute of the machine meets both.

    Returns:
        Per engine: median and spread of tokens/s. With `against`: the median of the rounds' ratios and the
        largest difference between the two engines' vectors.

    Raises:
        InvalidOptionError: no texts or no rounds.
        EngineNotInstalledError: sentence-transformers was asked for and is missing.
    """
    if texts < 1 or rounds < 1:
        raise InvalidOptionError("--texts and --rounds take whole numbers from 1")
    started = time.perf_counter()
    encoder = Encoder(folder, device=device, precision=precision, threads=threads, mode=mode)
    load_seconds = time.perf_counter() - started
    corpus = sample_texts(texts)
    engines: dict[str, Callable[[], Any]] = {}
    names = {"bgert": f"bgert, {encoder.engine}, {encoder.device} {encoder.precision}"}
    prompt = encoder.manifest.default_prompt
    engines["bgert"] = lambda: encoder.encode(corpus, prompt=prompt, show_progress=False)
    if against is not None:
        model, names["sentence-transformers"] = _sentence_transformer(against, encoder, threads)
        engines["sentence-transformers"] = lambda: model.encode(
            corpus, batch_size=32, show_progress_bar=False, normalize_embeddings=encoder.manifest.normalize
        )
    import warnings

    with progress_bar(rounds + 1, show_progress, unit="round") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vectors = {name: np.asarray(run()) for name, run in engines.items()}
        info = engines["bgert"]().info
        tokens = info.tokens
        if advance is not None:
            advance(1)
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for number in range(rounds):
            order = list(engines) if number % 2 == 0 else list(reversed(engines))
            for name in order:
                begun = time.perf_counter()
                engines[name]()
                seconds[name].append(time.perf_counter() - begun)
            if advance is not None:
                advance(1)
    result: dict[str, Any] = {
        "texts": texts,
        "tokens": tokens,
        "padding": info.padding,
        "rounds": rounds,
        "threads": threads_of(threads),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "load_seconds": round(load_seconds, 3),
        "engines": {
            name: {
                "description": names[name],
                "tokens_per_second": round(tokens / statistics.median(times)),
                "slowest": round(tokens / max(times)),
                "fastest": round(tokens / min(times)),
                "texts_per_second": round(texts / statistics.median(times), 1),
            }
            for name, times in seconds.items()
        },
    }
    if against is not None:
        ratios = [b / a for a, b in zip(seconds["bgert"], seconds["sentence-transformers"], strict=True)]
        result["speedup"] = round(statistics.median(ratios), 3)
        result["speedup_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
        result["max_abs_difference"] = float(np.abs(vectors["bgert"] - vectors["sentence-transformers"]).max())
    return result


def _sentence_transformer(source: str, encoder: Encoder, threads: int | None) -> tuple[Any, str]:
    from bgert_export.known_models import published_id

    if not Path(source).exists() and (published := published_id(source)) is not None:
        raise InvalidOptionError(f"--against {source}: did you mean {published}?")
    try:
        import sentence_transformers
        import torch
    except ImportError as error:
        raise EngineNotInstalledError(f"--against needs {error.name}: {install_extra('bench')}") from None
    torch.set_num_threads(threads_of(threads))
    model = sentence_transformers.SentenceTransformer(source, device="cpu")
    model.max_seq_length = encoder.max_length
    description = (
        f"sentence-transformers {sentence_transformers.__version__}, torch {torch.__version__}, fp32, batch 32"
    )
    return model, description


def report(result: dict[str, Any]) -> str:
    """The result as a table to read."""
    lines = [
        f"{result['texts']} texts, {result['tokens']} tokens, {result['rounds']} rounds in turns, "
        f"{result['threads']} threads, {result['machine']}"
    ]
    lines += [
        f"{engine['tokens_per_second']:>9,} tokens/s ({engine['slowest']:,} to {engine['fastest']:,})  "
        f"{engine['description']}"
        for engine in result["engines"].values()
    ]
    if result["padding"]:
        share = 100 * result["tokens"] / (result["tokens"] + result["padding"])
        lines.append(f"{share:.0f} % of the slots that bgert computed were tokens, the rest padding")
    if "speedup" in result:
        low, high = result["speedup_range"]
        lines.append(
            f"{result['speedup']:.2f} times sentence-transformers ({low:.2f} to {high:.2f} by round), "
            f"vectors differ by at most {result['max_abs_difference']:.1e}"
        )
    return "\n".join(lines)
