"""The README's benchmark tables, made from the newest JSON under `results/`.

`python benchmarks/report.py` rewrites the README; `--check` says whether it is up to date.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- benchmarks: made by benchmarks/report.py -->", "<!-- end of benchmarks -->"


def tables(result: dict[str, Any]) -> str:
    """Markdown of one run's JSON."""
    machine, encoder = result["machine"], result["encoder"]
    versions = machine["versions"]
    lines = ["| text to vectors | tokens/s | slowest to fastest round | against PyTorch |", "|---|---|---|---|"]
    for name, engine in encoder["engines"].items():
        ours = name == "bgert"
        low, high = encoder["speedup_range"]
        ratio = f"**{encoder['speedup']:.2f} x** ({low:.2f} to {high:.2f})" if ours else "1"
        speed = f"{engine['tokens_per_second']:,}"
        lines.append(
            f"| {engine['description']} | {f'**{speed}**' if ours else speed} | "
            f"{engine['slowest']:,} to {engine['fastest']:,} | {ratio} |"
        )
    lines += [
        "",
        "| text to token ids, one thread | MB/s (first pass) | HF tokenizers, MB/s | against HF | equal ids |",
        "|---|---|---|---|---|",
    ]
    for row in result["tokenizer"]["results"]:
        ours, ratio = row["bgert"], row["ratio"]
        lines.append(
            f"| {row['name']} | **{ours['mb_per_s']:.0f}** ({ours['first_pass_mb_per_s']:.0f}) | "
            f"{row['tokenizers']['mb_per_s']:.1f} | "
            f"**{ratio['median']:.0f} x** ({ratio['min']:.0f} to {ratio['max']:.0f}) | "
            f"{row['texts_with_equal_ids']:,} of {row['texts']:,} |"
        )
    instructions = ", ".join(machine["instructions"])
    lines += [
        "",
        f"*{result['model']}, {encoder['texts']:,} texts of mixed length ({encoder['tokens']:,} tokens, docstrings of "
        f"Python's standard library), median of {encoder['rounds']} rounds in turns; vectors differ from PyTorch's by "
        f"at most {encoder['max_abs_difference']:.1e}. {machine['processor']}, {machine['cores']} cores "
        f"({instructions}), Python {machine['python']}, onnxruntime {versions['onnxruntime']}, tokenizers "
        f"{versions['tokenizers']}, {result['date']}, commit {result['commit']}.*",
    ]
    return "\n".join(lines)


def newest() -> Path:
    """The newest result; names begin with the date."""
    return max(RESULTS.glob("*.json"))


def rendered(readme: str) -> str:
    """The README with its tables made anew."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n{tables(json.loads(newest().read_text()))}\n{END}{after}"


def main() -> int:
    """Rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text()
    new = rendered(text)
    if args.check:
        print("up to date" if new == text else "README.md is out of date: python benchmarks/report.py")
        return int(new != text)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main())
