"""Texts of 512 tokens on one core, in turns: bgert in three precisions, its other kernels, OpenVINO's two.

    python benchmarks/long_texts.py minilm bge-small --tokenizer CHECKPOINT [--before OLD/_kernels.so]

Random weights of each shape, one thread, the same token ids for all. Times are the process's CPU time for a batch,
medians over rounds; ratios are medians of the ratios of a round. `--before` takes the operators of another build,
`--sets` other kernels of this one (BGERT_KERNELS). OpenVINO is measured where it can be imported
(openvino==2026.4.1, and torch and transformers, which convert). Pin it: `taskset -c 1`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import random_checkpoint
from bgert.backends.onnx_cpu import KERNELS, feeds_of, kernels_name
from bgert.batching import PackedBatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[], NDArray[np.float32]]

PRECISIONS = ("fp32", "bf16", "int8")


def of_bgert(graph: Path, ids: NDArray[np.int32], library: Path, kernels: str) -> Run:
    """A run of a graph with the operators of a library."""
    from bgert.backends.onnxruntime_import import import_onnxruntime

    onnxruntime = import_onnxruntime()

    os.environ["BGERT_KERNELS"] = kernels
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.register_custom_ops_library(str(library))
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    os.environ.pop("BGERT_KERNELS")
    texts, length = ids.shape
    cuts = np.arange(0, ids.size + 1, length, dtype=np.int32)
    batch = PackedBatch(ids.ravel(), cuts, np.zeros(texts * length, np.int32))
    feeds = feeds_of([entry.name for entry in session.get_inputs()], batch)
    return lambda: np.asarray(session.run(None, feeds)[0])


def of_openvino(checkpoint: Path, ids: NDArray[np.int32]) -> dict[str, Run]:
    """Runs in OpenVINO's float32 and bfloat16, first token and length one, from the PyTorch network."""
    import openvino
    import torch
    from transformers import AutoModel, logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")  # of tracing
    network = AutoModel.from_pretrained(checkpoint, attn_implementation="sdpa").eval()

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            hidden = self.network(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids, return_dict=False
            )[0]
            return torch.nn.functional.normalize(hidden[:, 0], dim=1)

    example = torch.ones((2, 16), dtype=torch.long)
    model = openvino.convert_model(Pooled().eval(), example_input=(example, example, torch.zeros_like(example)))
    wide = ids.astype(np.int64)
    feeds = {"input_ids": wide, "attention_mask": np.ones_like(wide), "token_type_ids": np.zeros_like(wide)}
    runs: dict[str, Run] = {}
    for precision in ("f32", "bf16"):
        config = {"INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": precision}
        request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
        runs[f"OpenVINO {precision}"] = partial(_infer, request, feeds)
    return runs


def _infer(request: Any, feeds: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    return np.asarray(request.infer(feeds)[0])


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU time, all in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return seconds


def compare(geometry: str, args: argparse.Namespace, folder: Path) -> None:
    """Measure one shape and print a table."""
    from bgert_export import export

    checkpoint, exported = folder / geometry, folder / f"{geometry}-exported"
    random_checkpoint.write(geometry, args.tokenizer, checkpoint, seed=0)
    export(checkpoint, exported, targets=["cpu", "cpu-bf16", "cpu-int8"], verify=False, int8_floor=0.5)
    texts = max(1, 512 // args.length)
    ids = np.random.default_rng(0).integers(1000, 20000, (texts, args.length)).astype(np.int32)
    runs: dict[str, Run] = {}
    for precision in PRECISIONS:
        graph = exported / f"cpu-{precision}.onnx"
        runs[f"bgert {precision}"] = of_bgert(graph, ids, KERNELS, "")
        for name in args.sets:
            runs[f"bgert {precision}, {name}"] = of_bgert(graph, ids, KERNELS, name)
        if args.before is not None:
            runs[f"bgert {precision}, before"] = of_bgert(graph, ids, args.before, "")
    if find_spec("openvino") is not None:
        runs |= of_openvino(checkpoint, ids)
    seconds = measure(runs, args.rounds)
    reference = runs["bgert fp32"]().astype(np.float64)
    print(f"\n{geometry}, {texts} x {args.length} tokens, {kernels_name()} kernels, {args.rounds} rounds")
    print(f"{'':28}{'ms':>8}{'cosine':>11}  time / that of bgert fp32, bf16, int8")
    for name, run in runs.items():
        ratios = [
            statistics.median(a / b for a, b in zip(seconds[name], seconds[f"bgert {precision}"], strict=True))
            for precision in PRECISIONS
        ]
        cosine = float((run() * reference).sum(1).min())
        listed = "".join(f"{ratio:8.2f}" for ratio in ratios)
        print(f"{name:28}{1e3 * statistics.median(seconds[name]):8.2f}{cosine:11.6f}{listed}", flush=True)


def main() -> int:
    """Compare on each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("geometries", nargs="+", choices=random_checkpoint.GEOMETRIES)
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint folder to take the tokenizer from")
    parser.add_argument("--before", type=Path, help="_kernels.so of another build")
    parser.add_argument("--sets", nargs="*", default=[], help="more kernels of this build, as avx512vnni")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for geometry in args.geometries:
            compare(geometry, args, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
