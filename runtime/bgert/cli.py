"""The `bgert` command. Errors a user can mend are one line on stderr and exit status 2."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert import __version__
from bgert.errors import BgertError, InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, with an example in every command's help."""
    from bgert.evaluation import command as evaluation
    from bgert_export.cli import add_parsers

    parser = argparse.ArgumentParser(
        prog="bgert", description="BERT embeddings and rerankers without PyTorch, verified against it."
    )
    parser.add_argument("--version", action="version", version=f"bgert {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_parsers(commands)

    info = _command(commands, "info", run_info, "what a model folder holds", "bgert info bge-small-en")
    info.add_argument("folder", help="model folder")
    info.add_argument("--json", action="store_true", help="print the manifest")

    encode = _command(
        commands,
        "encode",
        run_encode,
        "texts to embeddings",
        "bgert encode bge-small-en --input docs.jsonl --field body --output docs.npy",
    )
    encode.add_argument("folder", help="model folder")
    encode.add_argument("--input", required=True, metavar="FILE", help=".txt (a text a line), .jsonl, or - for stdin")
    encode.add_argument("--output", required=True, metavar="FILE", help=".npy or .jsonl; replaced only on success")
    encode.add_argument("--field", default="text", help="field of a .jsonl line that holds the text (default: text)")
    encode.add_argument("--role", choices=("text", "query", "document"), default="text", help="which prompt to add")
    encode.add_argument("--prompt", help="name of another prompt of the model")
    encode.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")
    encode.add_argument("--dimensions", type=int, metavar="N", help="keep the first N dimensions")
    encode.add_argument("--dtype", default="float32", help="float32, float16, int8 or ubinary")
    _engine_options(encode)

    rerank = _command(
        commands,
        "rerank",
        run_rerank,
        "documents in the order of their score for a query, best first",
        "bgert rerank bge-reranker-base --query 'what is a panda' --input docs.txt --top-k 3",
    )
    rerank.add_argument("folder", help="model folder of a reranker")
    rerank.add_argument("--query", required=True, metavar="TEXT", help="the query")
    rerank.add_argument("--input", required=True, metavar="FILE", help="documents: .txt, .jsonl or - for stdin")
    rerank.add_argument("--field", default="text", help="field of a .jsonl line that holds the document")
    rerank.add_argument("--top-k", type=int, metavar="N", help="print the best N (default: all)")
    rerank.add_argument("--max-length", type=int, metavar="N", help="tokens a pair may have")
    rerank.add_argument("--truncation", default="longest_first", help="which side of a long pair loses its end")
    rerank.add_argument("--sigmoid", action="store_true", help="scores in (0, 1) instead of raw logits")
    rerank.add_argument("--json", action="store_true", help="a JSON object a line")
    _engine_options(rerank)

    tokenize = _command(
        commands,
        "tokenize",
        run_tokenize,
        "texts to token ids, a JSON list a line",
        "bgert tokenize bge-small-en 'hello world'",
    )
    tokenize.add_argument("folder", help="model folder or Hugging Face checkpoint folder")
    tokenize.add_argument("texts", nargs="*", help="texts; none reads --input")
    tokenize.add_argument("--input", metavar="FILE", help=".txt, .jsonl or - for stdin")
    tokenize.add_argument("--field", default="text", help="field of a .jsonl line that holds the text")
    tokenize.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")

    bench = _command(
        commands,
        "bench",
        run_bench,
        "tokens per second, beside sentence-transformers where the checkpoint is named",
        "bgert bench bge-small-en --against BAAI/bge-small-en",
    )
    bench.add_argument("folder", help="model folder")
    bench.add_argument("--against", metavar="SOURCE", help="checkpoint for sentence-transformers to run in turns")
    bench.add_argument("--texts", type=int, default=1500, metavar="N", help="texts a round (default: 1500)")
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    _engine_options(bench)

    evaluation_parser = _command(
        commands,
        "eval",
        evaluation.run,
        "nDCG@10, recall@100 and MRR@10 on a judged collection in BEIR's format",
        "bgert eval bge-small-en --data scifact --reranker bge-reranker-base --top-k 50",
    )
    evaluation.add_options(evaluation_parser)
    _engine_options(evaluation_parser)
    return parser


def _command(commands: Any, name: str, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


def _engine_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:NUMBER, cuda:all or tensorrt")
    parser.add_argument("--precision", default="auto", help="precision of the graph, as fp32")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all)")


def run_info(args: argparse.Namespace) -> int:
    """Print the manifest, shortly or whole."""
    from bgert.model_folder import Manifest

    manifest = Manifest.read(args.folder)
    if args.json:
        print(json.dumps(asdict(manifest), ensure_ascii=False, indent=2))
        return 0
    architecture = manifest.architecture
    numbers = ", ".join(f"{key} {value}" for key, value in architecture.items() if isinstance(value, int))
    lines = [
        ("kind", manifest.kind),
        (
            "source",
            ", ".join(str(manifest.source[key]) for key in ("id", "path", "revision") if manifest.source.get(key)),
        ),
        ("architecture", f"{architecture.get('model_type', '?')}: {numbers}"),
        ("max tokens", str(manifest.max_tokens)),
    ]
    if manifest.kind == "encoder":
        lines.append(
            (
                "embedding",
                f"{manifest.dimensions} dimensions, {manifest.pooling} pooling, "
                f"{'L2-normalised' if manifest.normalize else 'not normalised'}",
            )
        )
    lines += [(f"prompt {name}", repr(text)) for name, text in manifest.prompts.items()]
    for graph in manifest.graphs:
        size = sum(entry.size for entry in graph.files) / 1e6
        parity = graph.parity
        verdict = "NOT VERIFIED"
        if parity is not None:
            quality = ""
            if parity.min_cosine is not None:
                quality = f", cosine {parity.mean_cosine:.7f} in the mean, {parity.min_cosine:.7f} at least"
            verdict = f"{parity.count} inputs against {parity.reference}: max error {parity.max_abs_error:.1e}{quality}"
        lines.append((f"graph {graph.target} {graph.precision}", f"{size:.0f} MB, {graph.minimum_engine}; {verdict}"))
    lines += [(f"choice {choice.field}", f"{choice.value!r}: {choice.why}") for choice in manifest.choices]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    return 0


def run_encode(args: argparse.Namespace) -> int:
    """Embed a file of texts into a file of vectors."""
    from bgert.encoder import Encoder
    from bgert.results import output_shape
    from bgert.text_files import read_texts, write_embeddings

    if args.prompt is not None and args.role != "text":
        raise InvalidOptionError("--prompt and --role each name a prompt: use one of them")
    texts = read_texts(args.input, args.field)
    encoder = Encoder(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    prompt = args.prompt
    if args.role in encoder.manifest.prompts:
        prompt = args.role
    blocks = encoder.stream(
        texts, prompt=prompt, max_length=args.max_length, dimensions=args.dimensions, dtype=args.dtype
    )
    columns, dtype = output_shape(args.dimensions or encoder.dimensions, args.dtype)
    rows = write_embeddings(args.output, blocks, columns, dtype)
    print(f"{rows} embeddings of {columns} x {args.dtype} in {args.output} ({encoder.device}, {encoder.precision})")
    return 0


def run_rerank(args: argparse.Namespace) -> int:
    """Print documents by score."""
    from bgert.reranker import Reranker
    from bgert.text_files import read_texts

    documents = list(read_texts(args.input, args.field))
    reranker = Reranker(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    ranked = reranker.rank(
        args.query,
        documents,
        top_k=args.top_k,
        max_length=args.max_length,
        truncation=args.truncation,
        sigmoid=args.sigmoid,
    )
    kind = "sigmoid" if args.sigmoid else "logit"
    for index, score in ranked:
        if args.json:
            line = {"index": index, "score": score, "score_kind": kind, "text": documents[index]}
            print(json.dumps(line, ensure_ascii=False))
        else:
            print(f"{score:9.4f}  {index + 1:>6}  {' '.join(documents[index].split())[:100]}")
    return 0


def run_tokenize(args: argparse.Namespace) -> int:
    """Print the ids of each text as a JSON list."""
    from bgert.text_files import read_texts
    from bgert.tokenizer import Tokenizer

    if bool(args.texts) == bool(args.input):
        raise InvalidOptionError("give texts or --input FILE")
    tokenizer = Tokenizer.from_folder(args.folder)
    for text in args.texts or read_texts(args.input, args.field):
        print(json.dumps(tokenizer.encode_batch([text], max_length=args.max_length).ids.tolist()))
    return 0


def run_bench(args: argparse.Namespace) -> int:
    """Measure and print."""
    from bgert.bench import bench, report

    result = bench(
        Path(args.folder),
        against=args.against,
        texts=args.texts,
        rounds=args.rounds,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
    )
    print(json.dumps(result, indent=2) if args.json else report(result))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    warnings.showwarning = _warning_line
    args = build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
    except BgertError as error:
        print(f"bgert: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bgert: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except OSError as error:  # a full disk, say
        print(f"bgert: error: {error}", file=sys.stderr)
        return 2
    return status


def _warning_line(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, (DeprecationWarning, FutureWarning)):
        print(f"bgert: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
