"""Measure and write one JSON: `python benchmarks/run.py --folder MODEL --against CHECKPOINT`.

The encoder in turns with sentence-transformers, and the tokenizer in turns with HF tokenizers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import tokenizer as tokenizer_benchmark
from bgert.bench import bench, report
from bgert.cpu_count import available_cpus

ROOT = Path(__file__).resolve().parent.parent


def machine() -> dict[str, Any]:
    """What ran: processor, cores, Python and the versions that matter."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    interesting = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8") if name in flags]
    packages = (
        "bgert",
        "numpy",
        "onnxruntime",
        "tokenizers",
        "torch",
        "transformers",
        "sentence-transformers",
    )
    return {
        "processor": model,
        "instructions": interesting,
        "cores": available_cpus(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def commit() -> str:
    """The commit that was measured, with a + where the tree differs from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> int:
    """Run both measurements; print them and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="model folder")
    parser.add_argument("--against", required=True, help="its checkpoint")
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--corpora", help="as in benchmarks/tokenizer.py")
    parser.add_argument("--chinese", help="as in benchmarks/tokenizer.py")
    parser.add_argument("--multilingual", help="as in benchmarks/tokenizer.py")
    parser.add_argument("--output", type=Path, help="JSON to write, results/DATE-MACHINE.json for the README")
    args = parser.parse_args()
    encoder = bench(
        args.folder,
        against=args.against,
        texts=args.texts,
        rounds=args.rounds,
        device="auto",
        precision="auto",
        threads=None,
    )
    print(report(encoder))
    tokenizer = tokenizer_benchmark.measure(
        [
            f"--{name}={value}"
            for name in ("corpora", "chinese", "multilingual")
            if (value := getattr(args, name)) is not None
        ]
    )
    result = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "model": args.folder.name,
        "encoder": encoder,
        "tokenizer": tokenizer,
    }
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
