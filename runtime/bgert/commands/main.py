"""The `bgert` command. Errors a user can mend are one line on stderr and exit status 2."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bgert import __version__
from bgert.commands.signals import Stopped, signals_unwind
from bgert.commands.spelling import as_typed, flags_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, with an example in every command's help."""
    import argparse

    from bgert.commands import bench, bench_serve, doctor, encode, evaluate, info, rerank, serve, tokenize
    from bgert_export.cli import add_parsers

    parser = argparse.ArgumentParser(
        prog="bgert", description="BERT embeddings and rerankers without PyTorch, verified against it."
    )
    parser.add_argument("--version", action="version", version=f"bgert {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_parsers(commands)
    for name, module, summary, example in (
        ("info", info, "what a model folder holds", "info bge-small-en"),
        ("doctor", doctor, "what this machine can run, and what is missing", "doctor --json"),
        (
            "encode",
            encode,
            "texts to embeddings",
            "encode bge-small-en --input docs.jsonl --output docs.npy",
        ),
        (
            "rerank",
            rerank,
            "documents in the order of their score for a query, best first",
            "rerank bge-reranker-base --query 'what is a panda' --input docs.txt --top-k 3",
        ),
        ("tokenize", tokenize, "texts to token ids, a JSON list a line", "tokenize bge-small-en 'hello world'"),
        (
            "serve",
            serve,
            "models over HTTP, to clients of OpenAI, Cohere, Jina and text-embeddings-inference",
            "serve bge-small-en bge-reranker-base --port 8080",
        ),
        (
            "bench",
            bench,
            "tokens per second, beside sentence-transformers if you like; with --latency the time of single calls",
            "bench bge-small-en --against BAAI/bge-small-en",
        ),
        (
            "bench-serve",
            bench_serve,
            "`bgert serve` under load on this machine: latency and goodput against offered load",
            "bench-serve bge-small-en --load 0.5,1,2 --seconds 10",
        ),
        (
            "eval",
            evaluate,
            "nDCG@10, recall@100 and MRR@10 on a judged collection in BEIR's format",
            "eval bge-small-en --data scifact --reranker bge-reranker-base --top-k 50",
        ),
    ):
        _add(commands, name, module, summary, example)
    for command in commands.choices.values():
        command.set_defaults(flags=flags_of(command))
    return parser


def _add(commands: Any, name: str, module: Any, summary: str, example: str) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: bgert {example}",
    )
    module.add_options(parser)
    parser.set_defaults(run=module.run)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    try:
        with signals_unwind(last=argv is None):
            return _run(argv)
    except KeyboardInterrupt as stop:
        print(f"bgert: {stop if isinstance(stop, Stopped) else 'interrupted'}", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130


def _run(argv: Sequence[str] | None) -> int:
    # Not at the top: a signal may come while they load.
    import warnings

    from bgert.errors import BgertError

    args = None

    def warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if not issubclass(category, (DeprecationWarning, FutureWarning)):
            print(f"bgert: warning: {as_typed(str(message), args)}", file=sys.stderr)

    warnings.showwarning = warning_line
    try:
        args = build_parser().parse_args(argv)
        status: int = args.run(args)
    except BgertError as error:
        print(f"bgert: error: {' '.join(as_typed(str(error), args).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk, say
        print(f"bgert: error: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
