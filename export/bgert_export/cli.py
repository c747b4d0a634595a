"""`bgert export` and `bgert verify`. Nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["add_parsers"]


def add_parsers(commands: Any) -> None:
    """Register both commands with the result of `ArgumentParser.add_subparsers`."""
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
    export.add_argument("--pooling", choices=("cls", "mean"), help="where the checkpoint does not say, or against it")
    normalize = export.add_mutually_exclusive_group()
    normalize.add_argument("--normalize", action="store_true", default=None, help="vectors of length one")
    normalize.add_argument("--no-normalize", action="store_false", dest="normalize", help="vectors as pooled")
    export.add_argument("--query-prompt", metavar="TEXT", help="text before queries; '' for none")
    export.add_argument("--document-prompt", metavar="TEXT", help="text before documents; '' for none")
    export.add_argument("--max-tokens", type=int, metavar="N", help="longest input, special tokens counted")
    export.add_argument(
        "--target", action="append", dest="targets", metavar="NAME", help="graph to write: cpu (default), tensorrt, tensorrt-bf16; repeatable"
    )
    export.add_argument("--no-verify", action="store_false", dest="verify", help="do not compare with PyTorch")
    export.add_argument("--force", action="store_true", help="replace a model folder that exists")

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
    verify.add_argument("--json", action="store_true", help="print one JSON object")


def run_export(args: argparse.Namespace) -> int:
    """Export, saying on stderr what was chosen and why."""
    from bgert_export import export

    with _signals_unwind():
        manifest = export(
            args.source,
            args.output,
            revision=args.revision,
            pooling=args.pooling,
            normalize=args.normalize,
            query_prompt=args.query_prompt,
            document_prompt=args.document_prompt,
            max_tokens=args.max_tokens,
            targets=args.targets or ("cpu",),
            verify=args.verify,
            force=args.force,
            progress=_say,
        )
    size = sum(entry.size for entry in manifest.files()) / 1e6
    print(f"{args.output}: {manifest.kind}, {size:.0f} MB, {'verified' if args.verify else 'not verified'}")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Print the comparison; 1 when it fails."""
    from bgert_export.verify import verify_against

    reports = verify_against(
        args.folder,
        args.against,
        revision=args.revision,
        texts_file=args.texts,
        progress=None if args.json else _say,
    )
    passed = all(report.passed for report in reports)
    if args.json:
        print(json.dumps({"passed": passed, "graphs": [asdict(report) for report in reports]}, indent=2))
    else:
        for report in reports:
            print(report.summary())
    return 0 if passed else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that what was half written is removed."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
