"""The kinds of kernels that a processor may have."""

import pytest

from bgert.backends.onnx_cpu import KERNELS
from cpu_operators import SETS


@pytest.fixture(params=SETS)
def kernels(request, monkeypatch):
    """Kernels for a session that a test opens; skipped where the processor lacks them."""
    import onnxruntime

    monkeypatch.setenv("BGERT_KERNELS", request.param)
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(str(KERNELS))
    except Exception as error:
        if "BGERT_KERNELS" not in str(error):
            raise
        pytest.skip(f"no {request.param} here")
    return request.param
