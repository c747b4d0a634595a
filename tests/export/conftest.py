"""Fixtures of the exporter: networks, sessions and a float64 oracle."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def float64_bert():
    """The module tests/export/float64_bert.py."""
    path = Path(__file__).with_name("float64_bert.py")
    spec = importlib.util.spec_from_file_location("float64_bert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def feeds_of():
    """Inputs of a packed graph for lists of token ids."""
    from bgert.backends.onnx_cpu import _FEEDS
    from bgert.batching import PackedBatch

    def feeds(texts, names, types=None):
        lengths = np.array([len(ids) for ids in texts], np.int32)
        cuts = np.zeros(len(texts) + 1, np.int32)
        np.cumsum(lengths, out=cuts[1:])
        ids = np.concatenate(texts).astype(np.int32)
        kinds = np.zeros_like(ids) if types is None else np.concatenate(types).astype(np.int32)
        batch = PackedBatch(ids, cuts, kinds)
        return {name: _FEEDS[name](batch) for name in names}

    return feeds


@pytest.fixture(scope="session")
def open_session():
    def opened(folder, name="cpu-fp32.onnx"):
        import onnxruntime

        from bgert.backends.onnx_cpu import KERNELS

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.register_custom_ops_library(str(KERNELS))
        return onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])

    return opened


@pytest.fixture
def make_network(make_checkpoint):
    """A Network over a fresh checkpoint."""

    def make(**arguments):
        from bgert_export.checkpoint import Checkpoint
        from bgert_export.source import Source

        return Checkpoint.open(Source(make_checkpoint(**arguments))).network

    return make
