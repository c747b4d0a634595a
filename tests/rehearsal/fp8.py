"""A `cuda-fp8` graph under ONNX Runtime's real CUDA provider, without a GPU: `python tests/rehearsal/fp8.py`.

As run.py, whose environment it takes: kernels and products run on this processor, so that vectors are real. They are
compared with those of bgert_export's evaluator in numpy, at compute capability 9.0 (scales inside the product) and 8.9
(after it); a graph whose least number of tokens is 0 computes everything in FP8, and one with 64 the small batches in
fp16. On 8.0 the model must not open, and must say why.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from run import HERE, ROOT, environment, run, trained_checkpoint

TEXTS = [" ".join(["a folder with everything in it"] * n) for n in (1, 2, 9, 3)] + ["word", "two words"]
MOST = 128
LEAST = 64


def packed(texts: list[list[int]]) -> Any:
    """A batch of token ids."""
    from bgert.batching import PackedBatch

    ids = np.concatenate(texts).astype(np.int32)
    return PackedBatch(ids, np.cumsum([0, *map(len, texts)]).astype(np.int32), np.zeros_like(ids))


def cases(folder: Path) -> list[dict[str, Any]]:
    """Model folders with ids, and what the evaluator gives in FP8 and in fp16."""
    import random_checkpoint
    from bgert.model_folder import Manifest
    from bgert.tokenizer import Tokenizer
    from bgert_export import export
    from bgert_export.fp8.stand_in import Fp8StandIn
    from bgert_export.graphs import cuda_fp8

    trained = trained_checkpoint()
    random_checkpoint.GEOMETRIES |= {"tiny": (2, 128, 2, 30522, False)}
    checkpoint = folder / "tiny-checkpoint"
    random_checkpoint.write("tiny", trained, checkpoint, seed=1)
    found = []
    for least in (0, LEAST):
        cuda_fp8._LEAST["least_tokens"] = least
        made = folder / f"least-{least}"
        export(checkpoint, made, targets=["cuda-fp8"], verify=False, fp8_floor=0.5)
        manifest = Manifest.read(made)
        tokenizer = Tokenizer.from_folder(made)
        ids = [tokenizer.encode(text).tolist() for text in TEXTS]
        graph = Fp8StandIn.of(made, manifest, manifest.graphs[0])
        rows = {"fp8": graph.run(packed(ids)).tolist()}
        graph.in_half = [node.output[0] for node in graph._nodes if node.op_type == "LinearFp8"]
        rows["fp16"] = graph.run(packed(ids)).tolist()
        found.append(
            {"name": f"least {least}", "folder": str(made), "most": MOST, "graphs": False, "ids": ids, "expected": rows}
        )
    return found


def apart(found: Any, expected: Any) -> float:
    """The largest 1 - cosine."""
    a, b = (np.array(rows, np.float64) for rows in (found, expected))
    return float(1 - ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())


def compare(case: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is wrong with a case: the batch of all texts is in FP8, and each alone too unless it is below the least."""
    eighth, half = case["expected"]["fp8"], case["expected"]["fp16"]
    cost = apart(eighth, half)
    together, alone = found["rows"]["together"], found["rows"]["alone"]
    small = half if case["name"] != "least 0" else eighth
    print(
        f"{case['name']}: FP8 is {cost:.2e} from fp16; together {apart(together, eighth):.2e} from numpy's FP8, "
        f"alone {apart(alone, small):.2e} from numpy's {'fp16' if small is half else 'FP8'}"
    )
    wrong = [] if found["kernels_of_onnxruntime"] == 0 else ["kernels of ONNX Runtime were launched"]
    # A number next to the middle of two may round to either.
    if not apart(together, eighth) < cost / 4:
        wrong.append("a batch is not what numpy says")
    if not apart(alone, small) < cost / 4:
        wrong.append("texts alone are not what numpy says")
    if small is eighth and alone != together:
        wrong.append("a text alone has other bits than in a batch")
    return wrong


def main() -> int:
    """Export, rehearse, compare; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, help="keep the environment here, and take the one that is there")
    options = parser.parse_args()
    failures = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        python = environment((options.environments or work) / "rehearsal")
        asked = cases(work)
        (work / "cases.json").write_text(json.dumps({"models": asked, "misfits": []}))
        command = [python, ROOT / "tools" / "rehearse_cuda.py", "run", python, HERE / "rehearse.py"]
        for capability in ("90", "89"):
            run(*command, work / "cases.json", work / "found.json", FAKE_CUDA_CAPABILITY=capability)
            for case, found in zip(asked, json.loads((work / "found.json").read_text())["models"], strict=True):
                failures += [f"{case['name']}, {capability}: {what}" for what in compare(case, found)]
        try:
            run(*command, work / "cases.json", work / "found.json", FAKE_CUDA_CAPABILITY="80")
            failures.append("the model opened at compute capability 8.0")
        except SystemExit as refused:
            if "needs compute capability 8.9 or 9.0" not in str(refused) or "DeviceUnavailable" not in str(refused):
                failures.append(f"at compute capability 8.0: {refused}")
    print("\n".join(failures) if failures else "rehearsed: the operators give numpy's vectors")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
