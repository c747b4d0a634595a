"""`bgert encode`: a file of texts to a file of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bgert.commands.options import engine_options
from bgert.commands.text_files import read_texts, write_embeddings
from bgert.errors import InvalidOptionError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder")
    parser.add_argument("--input", required=True, metavar="FILE", help=".txt (a text a line), .jsonl, or - for stdin")
    parser.add_argument("--output", required=True, metavar="FILE", help=".npy or .jsonl; replaced only on success")
    parser.add_argument("--field", default="text", help="field of a .jsonl line that holds the text (default: text)")
    parser.add_argument(
        "--role", choices=("text", "query", "document"), default="text", help="as encode, encode_queries, encode_corpus"
    )
    parser.add_argument("--prompt", help="name of another prompt of the model")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--dtype", default="float32", help="float32, float16, int8 or ubinary")
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Embed a file of texts into a file of vectors."""
    from bgert.encoder import Encoder
    from bgert.results import output_shape

    if args.prompt is not None and args.role != "text":
        raise InvalidOptionError("--prompt and --role each name a prompt: use one of them")
    texts = read_texts(args.input, args.field)
    encoder = Encoder(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    prompt = args.prompt if args.role == "text" else args.role
    blocks = encoder.stream(
        texts, prompt=prompt, max_length=args.max_length, dimensions=args.dimensions, dtype=args.dtype
    )
    columns, dtype = output_shape(args.dimensions or encoder.dimensions, args.dtype)
    rows = write_embeddings(args.output, blocks, columns, dtype)
    print(f"{rows} embeddings of {columns} x {args.dtype} in {args.output} ({encoder.device}, {encoder.precision})")
    return 0
