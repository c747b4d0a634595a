"""`bgert encode`: a file of texts to a file of vectors."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bgert.commands.options import bars, engine_options, quiet_option
from bgert.commands.text_files import read_texts, write_embeddings
from bgert.errors import InvalidOptionError, InvalidTextError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id")
    parser.add_argument("--input", required=True, metavar="FILE", help=".txt (a text a line), .jsonl, or - for stdin")
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help=".npy or .jsonl, replaced only on success; - for .jsonl on stdout",
    )
    parser.add_argument(
        "--keep", metavar="FIELDS", help="`id,title` or `all`: .jsonl to .jsonl as objects of them and `embedding`"
    )
    parser.add_argument("--field", default="text", help="field of a .jsonl line that holds the text (default: text)")
    parser.add_argument(
        "--role", choices=("text", "query", "document"), default="text", help="as encode, encode_queries, encode_corpus"
    )
    parser.add_argument("--prompt", help="name of another prompt of the model")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N dimensions")
    parser.add_argument("--dtype", default="float32", help="float32, float16, int8, ubinary or binary")
    quiet_option(parser)
    engine_options(parser)


def run(args: argparse.Namespace) -> int:
    """Embed a file of texts into a file of vectors."""
    from bgert.encoder import Encoder
    from bgert.results import output_shape

    if args.prompt is not None and args.role != "text":
        raise InvalidOptionError("--prompt and --role each name a prompt: use one of them")
    kept = None if args.keep is None else Kept(args.keep, args.input, args.output)
    texts = read_texts(args.input, args.field, None if kept is None else kept.take)
    encoder = Encoder(args.folder, device=args.device, precision=args.precision, threads=args.threads)
    prompt = args.prompt if args.role == "text" else args.role
    show = bars(args)
    blocks = encoder.stream(
        texts,
        prompt=prompt,
        max_length=args.max_length,
        dimensions=args.dimensions,
        dtype=args.dtype,
        show_progress=show,
        total=count_texts(args.input) if show else None,
    )
    columns, dtype = output_shape(args.dimensions or encoder.dimensions, args.dtype)
    rows = write_embeddings(args.output, blocks, columns, dtype, list if kept is None else kept.line)
    piped = args.output == "-"
    noun = "embedding" if rows == 1 else "embeddings"
    place = "on stdout" if piped else f"in {args.output}"
    print(
        f"{rows} {noun} of {columns} x {args.dtype} {place} ({encoder.device}, {encoder.precision})",
        file=sys.stderr if piped else sys.stdout,
    )
    return 0


def count_texts(name: str) -> int | None:
    """Lines of a file, for a bar; None where it can be read only once. The encoder's errors are the ones to show."""
    path = Path(name)
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip() or path.suffix.lower() != ".jsonl")


class Kept:
    """Fields of the input's lines, from where they are read to where their vectors are written.

    Raises:
        InvalidOptionError: input or output is not .jsonl, or no field is named.
    """

    def __init__(self, fields: str, source: str, destination: str) -> None:
        self.fields = None if fields == "all" else [name.strip() for name in fields.split(",")]
        if self.fields is not None and not all(self.fields):
            raise InvalidOptionError(f"--keep is {fields!r}: use names of fields, as id,title, or all")
        if not source.lower().endswith(".jsonl") or not (destination == "-" or destination.lower().endswith(".jsonl")):
            raise InvalidOptionError("--keep is for .jsonl to .jsonl (or to - for stdout)")
        self.waiting: deque[dict[str, Any]] = deque()

    def take(self, record: dict[str, Any], where: str) -> None:
        """Keep the fields of a line until its vector comes.

        Raises:
            InvalidTextError: the line lacks one of them, or has an `embedding` already.
        """
        for name in self.fields or ():
            if name not in record:
                raise InvalidTextError(f"{where}: no field {name!r}, which --keep names")
        kept = record if self.fields is None else {name: record[name] for name in self.fields}
        if "embedding" in kept:
            raise InvalidTextError(f"{where}: has a field 'embedding' already: leave it out of --keep")
        self.waiting.append(kept)

    def line(self, row: list[float]) -> dict[str, Any]:
        """What the line of the next vector holds."""
        return {**self.waiting.popleft(), "embedding": row}
