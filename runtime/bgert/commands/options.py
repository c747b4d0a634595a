"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

__all__ = ["engine_options"]


def engine_options(parser: argparse.ArgumentParser) -> None:
    """Where and how a command runs a model."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:NUMBER, cuda:all or tensorrt")
    parser.add_argument("--precision", default="auto", help="precision of the graph, as fp32")
    parser.add_argument("--threads", type=int, metavar="N", help="cores to use (default: all)")
