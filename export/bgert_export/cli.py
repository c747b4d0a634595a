"""`bgert export`, `bgert verify` and `bgert build`. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bgert.commands.options import bars, quiet_option
from bgert_export import FP8_FLOOR, INT8_FLOOR

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Register the commands with the result of `ArgumentParser.add_subparsers`."""
    export = commands.add_parser(
        "export",
        help="checkpoint to model folder, proved equal to PyTorch",
        description="Export a BERT-family checkpoint to a model folder and prove it equal to PyTorch.",
        epilog="example: bgert export BAAI/bge-small-en-v1.5 -o bge-small-en",
    )
    export.set_defaults(run=run_export)
    export.add_argument("source", help="checkpoint folder, or hub id; a folder wins")
    export.add_argument("-o", "--output", required=True, metavar="DIR", help="model folder to make")
    export.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    export.add_argument(
        "--pooling",
        metavar="NAME",
        help="where the checkpoint does not say, or against it: cls, mean, max, mean_sqrt_len_tokens, weightedmean, "
        "lasttoken, or several joined by +; splade, splade_sum, splade_log1p",
    )
    normalize = export.add_mutually_exclusive_group()
    normalize.add_argument("--normalize", action="store_true", default=None, help="vectors of length one")
    normalize.add_argument("--no-normalize", action="store_false", dest="normalize", help="vectors as pooled")
    export.add_argument("--query-prompt", metavar="TEXT", help="text before queries; '' for none")
    export.add_argument("--document-prompt", metavar="TEXT", help="text before documents; '' for none")
    export.add_argument("--max-tokens", type=int, metavar="N", help="longest input, special tokens counted")
    export.add_argument(
        "--target",
        action="append",
        dest="targets",
        metavar="NAME,...",
        help="graphs to write: cpu (default), cpu-bf16, cpu-int8, cuda, cuda-fused, cuda-fused-erf, cuda-fp8, "
        "tensorrt, tensorrt-bf16, portable (for other programs); repeatable",
    )
    export.add_argument(
        "--int8-floor",
        type=float,
        default=INT8_FLOOR,
        metavar="X",
        help="refuse an int8 graph below this mean cosine to fp32",
    )
    export.add_argument("--fp8-floor", type=float, default=FP8_FLOOR, metavar="X", help="the same for a cuda-fp8 graph")
    export.add_argument("--no-verify", action="store_false", dest="verify", help="do not compare with PyTorch")
    export.add_argument("--force", action="store_true", help="replace a model folder that exists")
    export.add_argument(
        "--ignore-unknown-weights",
        action="store_true",
        help="leave out weights that the network of config.json does not have, as transformers does",
    )
    export.add_argument(
        "--via",
        metavar="torch|optimum",
        help="let another exporter write the graph, for networks that bgert has no writer for: fp32 on the CPU, padded",
    )
    export.add_argument(
        "--optimum-python", metavar="PATH", help="python of an environment with optimum-onnx, for --via optimum"
    )
    export.add_argument(
        "--tokenizer",
        default="bgert",
        metavar="bgert|huggingface",
        help="huggingface, for tokenizers that bgert does not have: ids by HF tokenizers, a Rust package, at its speed",
    )

    verify = commands.add_parser(
        "verify",
        help="compare a model folder with a PyTorch checkpoint",
        description="Compare a model folder with a PyTorch checkpoint. Exit status 1 when they differ.",
        epilog="example: bgert verify bge-small-en --against BAAI/bge-small-en-v1.5",
    )
    verify.set_defaults(run=run_verify)
    verify.add_argument("folder", help="model folder")
    verify.add_argument("--against", required=True, metavar="SOURCE", help="checkpoint folder, or hub id")
    verify.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    verify.add_argument(
        "--texts",
        metavar="FILE",
        help=".txt (a text a line; for rerankers query, tab, document) or .jsonl; instead of the built-in texts",
    )
    verify.add_argument(
        "--device", default="cpu", help="cpu, or tensorrt or tensorrt-rtx for an engine of `bgert build`"
    )
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    quiet_option(verify)

    build = commands.add_parser(
        "build",
        help="TensorRT engine of a model folder, for the GPU of this machine or for others",
        description="Build the TensorRT engine of a model folder for the GPU of this machine, or with --for a TensorRT "
        "for RTX engine for others, and keep it in the cache.",
        epilog="example: bgert build bge-small-en --lengths sample.txt --tokens-per-batch 16384",
    )
    build.set_defaults(run=run_build)
    build.add_argument("folder", help="model folder, exported with --target tensorrt")
    build.add_argument(
        "--for",
        dest="targets",
        metavar="any|sm86,sm89,...",
        help="TensorRT for RTX engine for these GPUs instead, on this machine with or without a GPU",
    )
    build.add_argument("--precision", help="fp16 or bf16 (default: the folder's first TensorRT graph)")
    build.add_argument("--buckets", metavar="N,N,...", help="lengths to build for (default: 32, 64, 128, ...)")
    build.add_argument("--lengths", metavar="FILE", help="texts like yours, to choose the lengths by: least padding")
    build.add_argument("--tokens-per-batch", type=int, default=8192, metavar="N", help="default: 8192")
    build.add_argument("--workspace", type=int, metavar="MB", help="memory that a kernel may use (default: no limit)")
    build.add_argument("--level", type=int, default=3, metavar="0-5", help="TensorRT's optimisation level (default: 3)")
    build.add_argument("--lean", action="store_true", help="for the lean runtime, and later versions of it; slower")
    build.add_argument("--require-fused", action="store_true", help="fail where attention was not fused")
    build.add_argument("--force", action="store_true", help="build even where the cache has this engine")
    build.add_argument("--dry-run", action="store_true", help="print profiles and memory; needs no GPU")


def run_export(args: argparse.Namespace) -> int:
    """Export, saying on stderr what was chosen and why."""
    from bgert_export import export

    manifest = export(
        args.source,
        args.output,
        revision=args.revision,
        pooling=args.pooling,
        normalize=args.normalize,
        query_prompt=args.query_prompt,
        document_prompt=args.document_prompt,
        max_tokens=args.max_tokens,
        targets=_targets(args.targets),
        int8_floor=args.int8_floor,
        fp8_floor=args.fp8_floor,
        verify=args.verify,
        force=args.force,
        ignore_unknown_weights=args.ignore_unknown_weights,
        via=args.via,
        optimum_python=args.optimum_python,
        tokenizer=args.tokenizer,
        progress=_say,
    )
    size = sum(entry.size for entry in manifest.files()) / 1e6
    unproved = [f"{graph.target} {graph.precision}" for graph in manifest.graphs if graph.parity is None]
    verdict = f"not verified: {', '.join(unproved)}" if unproved else "verified"
    print(f"{args.output}: {manifest.kind}, {size:.0f} MB, {verdict}")
    if any(graph.target == "tensorrt" for graph in manifest.graphs):
        print(f"next, on the machine with the GPU: bgert build {args.output}")
    return 0


def _targets(asked: list[str] | None) -> list[str]:
    """Targets of `--target cpu,cuda --target tensorrt`."""
    return [name.strip() for entry in asked or ["cpu"] for name in entry.split(",")]


def run_verify(args: argparse.Namespace) -> int:
    """Print the comparison; 1 when it fails."""
    from bgert_export.verification.verify import verify_against

    reports = verify_against(
        args.folder,
        args.against,
        revision=args.revision,
        texts_file=args.texts,
        device=args.device,
        progress=None if args.json else _say,
        show_progress=bars(args),
    )
    passed = all(report.passed for report in reports)
    if args.json:
        print(json.dumps({"passed": passed, "graphs": [asdict(report) for report in reports]}, indent=2))
    else:
        for report in reports:
            print(report.summary())
    return 0 if passed else 1


def run_build(args: argparse.Namespace) -> int:
    """Build, saying on stderr what happens, or print what would be built."""
    from bgert.errors import InvalidOptionError
    from bgert.model_folder import Manifest
    from bgert.paths import user_path
    from bgert_export.tensorrt.buckets import device_bytes
    from bgert_export.tensorrt.engine import BuildOptions, build_engine, describe, plan_profiles

    try:
        buckets = [int(part) for part in args.buckets.split(",")] if args.buckets is not None else None
    except ValueError:
        raise InvalidOptionError(f"--buckets is {args.buckets!r}: use lengths, as 32,64,128") from None
    if args.workspace is not None and args.workspace < 1:
        raise InvalidOptionError(f"--workspace is {args.workspace}: use megabytes from 1")
    options = BuildOptions(
        precision=args.precision,
        buckets=buckets,
        lengths_file=args.lengths,
        tokens_per_batch=args.tokens_per_batch,
        workspace=None if args.workspace is None else args.workspace << 20,
        level=args.level,
        lean=args.lean,
        require_fused=args.require_fused,
        force=args.force,
        targets=None if args.targets is None else args.targets.lower().split(","),
    )
    folder = user_path(args.folder, "the model folder")
    if args.dry_run:
        manifest, graph, profiles = plan_profiles(folder, options)
        weights = sum(entry.size for entry in graph.files) / 1e6
        print(f"{graph.target} {graph.precision}: weights {weights:.0f} MB, estimates for activations:")
        for profile in profiles:
            size = {name: value / 1e6 for name, value in device_bytes(manifest.architecture, profile).items()}
            print(
                f"length {profile.length:>5}, 1 to {profile.texts:>3} texts: inputs {size['inputs']:.1f} MB, "
                f"activations {size['fused']:.0f} MB ({size['unfused']:.0f} MB if attention is not fused)"
            )
        return 0
    record = build_engine(folder, options, _say)
    print(describe(record, Manifest.read(folder)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
