"""Checkpoints and model folders for the tests here, made without a hub.

`minilm` is trained (all-MiniLM-L6-v2, mean pooling). The others have random weights in the shape and with the files of
what the hub has under their folder's name, so that whatever goes by names or files finds what it would find there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path) -> dict[str, Path]:
    """Checkpoints `minilm`, `bge` and `reranker`, by name; as `exported-NAME` what bgert makes of each for itself, and
    as `portable-NAME` for others."""
    sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "benchmarks")]
    import demo

    import random_checkpoint
    from bgert_export import export

    minilm = demo.checkpoint_folder()
    bge, reranker = folder / "bge-small-en-v1.5", folder / "ms-marco-MiniLM-L-6-v2"
    random_checkpoint.write("bge-small", minilm, bge, seed=1)
    random_checkpoint.write("minilm-reranker", minilm, reranker, seed=2)
    checkpoints = {"minilm": minilm, "bge": bge, "reranker": reranker}
    exported = {f"exported-{name}": folder / "exported" / path.name for name, path in checkpoints.items()}
    exported["exported-minilm"] = folder / "exported" / "all-MiniLM-L6-v2"
    portable = {f"portable-{name}": folder / "portable" / name for name in checkpoints}
    for name, path in checkpoints.items():
        export(path, exported[f"exported-{name}"], verify=False)
        export(path, portable[f"portable-{name}"], targets=["portable"], verify=False)
    return checkpoints | exported | portable
