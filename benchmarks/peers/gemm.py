"""The machine's bare rate: matrix products of a model's shapes in ONNX Runtime, one thread a core on all cores at once.

Inputs and outputs are bound, since fresh outputs would cost page faults. fp32 is MatMul, u8s8 MatMulInteger with int32
results; weights are constants, which ONNX Runtime packs beforehand as it does in a model.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

ROWS = 128  # the result stays in the second-level cache
SECONDS = 0.15
OPERATORS = {"fp32": "MatMul", "u8s8": "MatMulInteger"}


def load(task: dict[str, Any]) -> Any:
    """Build the products."""
    return Products(task["hidden"], task["inner"], task["threads"])


class Products:
    """The six matrices of a layer: four of [H, H], one of [H, I], one of [I, H]."""

    def __init__(self, hidden: int, inner: int, threads: int) -> None:
        self.threads = threads
        self.shapes = [(hidden, hidden, 4), (hidden, inner, 1), (inner, hidden, 1)]
        self.sessions = {
            (precision, k, n): session(precision, k, n) for precision in OPERATORS for k, n, _ in self.shapes
        }
        self.settings = {"rows": ROWS, "threads": threads}

    def measure(self) -> dict[str, Any]:
        """GFLOP/s of all cores together for each shape, and for a layer's matrices in their proportion."""
        rates: dict[str, Any] = {}
        for precision in OPERATORS:
            shapes = {f"{k}x{n}": self._rate(precision, k, n) for k, n, _ in self.shapes}
            work = [count * k * n for k, n, count in self.shapes]
            layer = sum(work) / sum(part / rate for part, rate in zip(work, shapes.values(), strict=True))
            rates[precision] = {"layer": layer, **shapes}
        return {"gflops": rates}

    def _rate(self, precision: str, k: int, n: int) -> float:
        model = self.sessions[precision, k, n]
        barrier = Barrier(self.threads)

        def work(number: int) -> tuple[int, float]:
            binding = bind(model, precision, k, n, seed=number)
            model.run_with_iobinding(binding)
            barrier.wait()
            runs, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < SECONDS:
                model.run_with_iobinding(binding)
                runs += 1
            return runs, time.perf_counter() - begun

        with ThreadPoolExecutor(self.threads) as pool:
            return sum(2 * ROWS * k * n * runs / seconds / 1e9 for runs, seconds in pool.map(work, range(self.threads)))


def session(precision: str, k: int, n: int) -> Any:
    """A session of one product with a constant right side."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    if precision == "fp32":
        weight = draw.standard_normal((k, n), np.float32)
        types = (TensorProto.FLOAT, TensorProto.FLOAT)
    else:
        weight = draw.integers(-64, 65, (k, n), np.int8)
        types = (TensorProto.UINT8, TensorProto.INT32)
    graph = helper.make_graph(
        [helper.make_node(OPERATORS[precision], ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", types[0], [ROWS, k])],
        [helper.make_tensor_value_info("c", types[1], [ROWS, n])],
        [numpy_helper.from_array(weight, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def bind(model: Any, precision: str, k: int, n: int, seed: int) -> Any:
    """Input and output of one thread."""
    from onnxruntime import OrtValue

    draw = np.random.default_rng(seed)
    if precision == "fp32":
        left, result = draw.standard_normal((ROWS, k), np.float32), np.empty((ROWS, n), np.float32)
    else:
        left, result = draw.integers(0, 256, (ROWS, k), np.uint8), np.empty((ROWS, n), np.int32)
    binding = model.io_binding()
    binding.bind_ortvalue_input("a", OrtValue.ortvalue_from_numpy(left))
    binding.bind_ortvalue_output("c", OrtValue.ortvalue_from_numpy(result))
    return binding
