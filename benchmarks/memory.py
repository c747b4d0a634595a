"""Resident memory while `Encoder.stream` embeds many short texts: `python benchmarks/memory.py MODEL_FOLDER`.

Prints resident memory after every block and fails when it grows by more than the limit after the first blocks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import bgert


def resident_mb() -> float:
    """Resident set of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> int:
    """Stream and watch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--limit-mb", type=float, default=20.0)
    args = parser.parse_args()
    encoder = bgert.Encoder(args.folder)
    loaded = resident_mb()
    started = time.perf_counter()
    rows, readings = 0, []
    for block in encoder.stream(f"short text number {number}, nothing more" for number in range(args.texts)):
        rows += len(block)
        readings.append(resident_mb())
        print(f"{rows:>8} texts {time.perf_counter() - started:7.1f} s {readings[-1]:7.1f} MB", file=sys.stderr)
    settled = readings[min(2, len(readings) - 1)]
    growth = max(readings) - settled
    result = {"texts": rows, "loaded_mb": loaded, "settled_mb": settled, "peak_mb": max(readings), "growth_mb": growth}
    print(json.dumps(result))
    return int(growth > args.limit_mb)


if __name__ == "__main__":
    sys.exit(main())
