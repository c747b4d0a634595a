"""Measure each set of kernels on this processor: multiply-adds a second of products, and what rows cost beside them.

    python benchmarks/arm.py                        one thread, every set that the processor has
    python benchmarks/arm.py --core "Neoverse V1" --ghz 2.6    and the share of that core's peak
    python benchmarks/arm.py --json > mine.json

Needs bgert with the extras `cpu` and `export` (for onnx), and nothing else to run meanwhile. Written for ARM, where no
kernel has been timed yet (docs/ARM.md); it runs on x86-64 all the same. Each set is opened in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from arm_loops import CORES, MACS, SETS
from machine import describe

X86 = ("avx2", "avx2vnni", "avx512", "avx512vnni", "avx512bf16")
# The instruction that each set multiplies with.
PRODUCTS = {
    "fp32": dict.fromkeys(SETS, "fmla"),
    "bf16": {**dict.fromkeys(SETS, "fmla"), "neonbf16": "bfmmla"},
    "int8": {"baseline": "smull", "neondot": "sdot", "neoni8mm": "usmmla", "neonbf16": "usmmla"},
}
HIDDEN, INNER, HEADS = 384, 1536, 12  # MiniLM's


def _operators(rows: int) -> dict[str, tuple[str, dict[str, Any], dict[str, Any], int]]:
    """By name: the operator, its inputs, its attributes, and multiply-adds of a call."""
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    def halves(*shape: int) -> Any:
        return (floats(*shape).view(np.uint32) >> 16).astype(np.uint16)

    panels, bias, row = INNER // 32, floats(INNER), floats(HIDDEN)
    x8 = rng.integers(0, 256, (rows, HIDDEN + 8)).astype(np.uint8)
    x8[:, HIDDEN:] = np.frombuffer(np.float32(0.01).tobytes() + np.int32(128).tobytes(), np.uint8)
    weights8 = rng.integers(-127, 128, (panels, HIDDEN * 32)).astype(np.int8)
    sums = weights8.reshape(panels, HIDDEN // 4, 32, 4).sum((1, 3), dtype=np.int32).ravel()
    macs = rows * HIDDEN * INNER
    texts = np.arange(0, rows + 1, rows // 2, dtype=np.int32)
    attention = {"query": floats(rows, HIDDEN), "key": floats(rows, HIDDEN), "value": floats(rows, HIDDEN)}
    norm = {"x": floats(rows, HIDDEN), "residual": floats(rows, HIDDEN), "gamma": row, "beta": row}
    return {
        "fp32": ("LinearFp32", {"x": floats(rows, HIDDEN), "w": floats(panels, HIDDEN * 32), "b": bias}, {}, macs),
        "bf16": ("LinearBf16", {"x": halves(rows, HIDDEN), "w": halves(panels, HIDDEN * 32), "b": bias}, {}, macs),
        "int8": ("LinearInt8", {"x": x8, "w": weights8, "s": np.abs(bias), "sums": sums, "b": bias}, {}, macs),
        "attention": ("PackedAttention", attention | {"cu": texts}, {"num_heads": HEADS}, rows * rows * HIDDEN),
        "layer norm": ("AddLayerNorm", norm, {"epsilon": 1e-12}, 0),
        "gelu": ("Gelu", {"x": floats(rows, INNER)}, {}, 0),
    }


def _session(op_type: str, inputs: dict[str, Any], attributes: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """One operator on one thread, and what to feed it: bfloat16 goes in as the numbers of a constant."""
    from bgert.backends.onnxruntime_import import import_onnxruntime

    onnxruntime = import_onnxruntime()
    from onnx import TensorProto, helper

    from bgert.backends.onnx_cpu import KERNELS

    kinds = {
        np.dtype(name): getattr(TensorProto, kind)
        for name, kind in (
            ("float32", "FLOAT"),
            ("int32", "INT32"),
            ("uint8", "UINT8"),
            ("int8", "INT8"),
            ("uint16", "BFLOAT16"),
        )
    }
    constants = {
        name: array for name, array in inputs.items() if name in ("w", "s", "sums", "b") or array.dtype == np.uint16
    }
    tensors = [helper.make_tensor(n, kinds[a.dtype], a.shape, a.tobytes(), raw=True) for n, a in constants.items()]
    fed = {name: array for name, array in inputs.items() if name not in constants}
    node = helper.make_node(op_type, list(inputs), ["out"], domain="bgert", **attributes)
    values = [helper.make_tensor_value_info(name, kinds[array.dtype], array.shape) for name, array in fed.items()]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bgert", 1)]
    model = helper.make_model(
        helper.make_graph([node], "one", values, [out], tensors), opset_imports=opsets, ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or it would fold constants
    options.register_custom_ops_library(str(KERNELS))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]), fed


def _best(session: Any, fed: dict[str, Any], seconds: float) -> float:
    """Seconds of the fastest call, of at least 5."""
    session.run(None, fed)
    best, calls, end = float("inf"), 0, time.monotonic() + seconds
    while calls < 5 or time.monotonic() < end:
        started = time.perf_counter()
        session.run(None, fed)
        best, calls = min(best, time.perf_counter() - started), calls + 1
    return best


def measure(rows: int, seconds: float) -> dict[str, dict[str, float]]:
    """What the kernels that BGERT_KERNELS names need: milliseconds, and 10^9 multiply-adds a second."""
    found = {}
    for name, (op_type, inputs, attributes, macs) in _operators(rows).items():
        best = _best(*_session(op_type, inputs, attributes), seconds)
        found[name] = {"ms": best * 1e3} | ({"gmacs": macs / best / 1e9} if macs else {})
    return found


def main() -> None:
    """A row for each set and operator."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=240, help="tokens of a call, in two texts for attention")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each set and operator")
    parser.add_argument("--core", choices=list(CORES), help="with --ghz: the share of its peak")
    parser.add_argument("--ghz", type=float, help="the clock while this runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # this process's BGERT_KERNELS alone
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.rows, options.seconds)))
        return
    found = {}
    for name in (*SETS, *X86):
        command = [sys.executable, __file__, "--one", f"--rows={options.rows}", f"--seconds={options.seconds}"]
        done = subprocess.run(command, env={**os.environ, "BGERT_KERNELS": name}, capture_output=True, text=True)
        if done.returncode == 0:
            found[name] = json.loads(done.stdout)
        elif "BGERT_KERNELS" not in done.stderr:
            raise SystemExit(done.stderr)
    if options.json:
        print(json.dumps({"machine": describe(), "rows": options.rows, "kernels": found}, indent=1))
        return
    for kernels, operators in found.items():
        for name, one in operators.items():
            line = f"{kernels:12} {name:12} {one['ms']:8.3f} ms"
            if "gmacs" in one:
                line += f" {one['gmacs']:8.1f} GMAC/s"
            product = PRODUCTS.get(name, {}).get(kernels)
            if options.core and options.ghz and product and (pipes := CORES[options.core].pipes(product)):
                line += f" {one['gmacs'] / (pipes * MACS[product] * options.ghz):6.0%} of the core's {product}"
            print(line)


if __name__ == "__main__":
    main()
