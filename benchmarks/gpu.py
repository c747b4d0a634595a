"""Everything that only a GPU can tell, in one command without a network: parity, kernel choice, speed, latency, memory.

    python benchmarks/gpu.py --tokenizer CHECKPOINT --output build/gpu.json [--work build/gpu]
    python benchmarks/gpu.py --tokenizer CHECKPOINT --output build/rehearsal.json --rehearse

`--tokenizer` is a BERT checkpoint to take the tokenizer from; the measured models have the shapes of bge models and
random weights. Every stage writes its result, and a second call goes on with the first stage that has none, so a call
that runs out of `--deadline` loses nothing. `--rehearse` runs every stage on the CPU at a small size: its numbers mean
nothing. Exit status 1: a check failed. It needs the extras `gpu`, `export` and `bench` (README, Install).
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_fused
import gpu_latency
import gpu_models
import gpu_stages
import machine
import random_checkpoint
from gpu_bench import Bench
from results import begin_gpu

if TYPE_CHECKING:
    from collections.abc import Callable

NEEDED = ("onnxruntime", "onnx", "safetensors", "torch", "transformers", "sentence_transformers")

STAGES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "machine": gpu_stages.stage_machine,
    "export": gpu_stages.stage_export,
    "flash": gpu_stages.stage_flash,
    "parity": gpu_stages.stage_parity,
    "matmul": gpu_stages.stage_matmul,
    "kernels": gpu_stages.stage_kernels,
    "latency": gpu_stages.stage_latency,
    "graphs": gpu_latency.stage_graphs,
    "text": gpu_stages.stage_text,
    "fused_parity": gpu_fused.stage_fused_parity,
    "fused_kernels": gpu_fused.stage_fused_kernels,
    "torch_kernels": gpu_stages.stage_torch_kernels,
    "trained": gpu_models.stage_trained,
    "rerankers": gpu_models.stage_rerankers,
    "geometries": gpu_models.stage_geometries,
    "fused_shapes": gpu_fused.stage_fused_shapes,
    "growth": gpu_stages.stage_growth,
    "torch_compile": gpu_models.stage_torch_compile,
}


def main() -> int:
    """Run the stages that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="BERT checkpoint to take the tokenizer from")
    parser.add_argument("--output", type=Path, required=True, help="JSON of results; stages that are in it are not run")
    parser.add_argument("--work", type=Path, default=Path("build/gpu"), help="folder for checkpoints and models")
    parser.add_argument("--geometry", default="bge-base", choices=random_checkpoint.GEOMETRIES)
    parser.add_argument("--no-reranker", action="store_true", help="leave out the parity of a reranker")
    parser.add_argument("--device", default="cuda:0", help="of bgert")
    parser.add_argument("--torch-device", default="cuda", help="of PyTorch")
    parser.add_argument("--deadline", type=float, default=270, help="start no stage after so many seconds")
    parser.add_argument("--only", nargs="*", choices=STAGES, help="these stages, run again even if they have a result")
    parser.add_argument("--rehearse", action="store_true", help="every stage on the CPU, small")
    args = parser.parse_args()
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        parser.error(f"{', '.join(missing)} not installed: install the extras `gpu`, `export` and `bench`")
    started = time.perf_counter()
    if args.rehearse:
        args.torch_device, args.geometry = "cpu", "minilm"
        args.device = "cpu" if args.device == "cuda:0" else args.device
    begun_now = begin_gpu(datetime.date.today().isoformat(), machine.commit(), rehearsal=args.rehearse)
    results = json.loads(args.output.read_text()) if args.output.exists() else begun_now
    if differing := [key for key in ("schema", "kind", "commit") if results.get(key) != begun_now[key]]:
        parser.error(f"{args.output} has another {', '.join(differing)}: choose another file")
    if results["rehearsal"] != args.rehearse:
        parser.error(f"{args.output} is {'not ' * args.rehearse}a rehearsal: choose another file")
    args.work.mkdir(parents=True, exist_ok=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        args.work,
        args.tokenizer,
        args.device,
        args.torch_device,
        args.geometry,
        not args.no_reranker,
        args.rehearse,
        results,
    )
    failed = []
    for name in args.only or [name for name in STAGES if "error" in results.get(name, {"error": ""})]:
        begun = time.perf_counter()
        if begun - started > args.deadline:
            print(f"{name}: not begun, {args.deadline:g} s are over; the same command goes on from here", flush=True)
            break
        try:
            result = STAGES[name](bench)
        except Exception as error:  # one stage that fails must not take the others' time on the machine with it
            traceback.print_exc()
            result = {"error": f"{type(error).__name__}: {error}"}
        result["stage_seconds"] = round(time.perf_counter() - begun, 1)
        results[name] = result
        args.output.write_text(json.dumps(results, indent=1) + "\n")
        if "error" in result or result.get("passed") is False:
            failed.append(name)
        print(f"{name}: {json.dumps(result)}", flush=True)
    if failed:
        print(f"FAILED: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
