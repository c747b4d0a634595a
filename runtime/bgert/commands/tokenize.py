"""`bgert tokenize`: token ids, a JSON list a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bgert.errors import InvalidOptionError
from bgert.jobs.text_files import read_texts

if TYPE_CHECKING:
    import argparse

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id")
    parser.add_argument("texts", nargs="*", help="texts; none reads --input")
    parser.add_argument("--input", metavar="FILE", help=".txt, .jsonl or - for stdin")
    parser.add_argument("--field", default="text", help="field of a .jsonl line that holds the text")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens a text may have")


def run(args: argparse.Namespace) -> int:
    """Print the ids of each text as a JSON list."""
    from bgert.hub import locate
    from bgert.tokenizer import Tokenizer

    if bool(args.texts) == bool(args.input):
        raise InvalidOptionError("give texts or --input FILE")
    tokenizer = Tokenizer.from_folder(locate(args.folder, None))
    blocks = [args.texts] if args.texts else ([text] for text in read_texts(args.input, args.field))
    for texts in blocks:
        for ids in tokenizer.encode_batch(texts, max_length=args.max_length).tolist():
            print(json.dumps(ids))
    return 0
