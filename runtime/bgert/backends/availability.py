"""Whether each device can run models here, in the words that opening a model on it would use."""

from __future__ import annotations

import subprocess
import sys

from bgert.errors import BgertError, EngineNotInstalledError, install_extra

__all__ = ["DEVICES", "why_unavailable", "why_unavailable_here"]

DEVICES = ("cpu", "cuda", "tensorrt", "tensorrt-rtx")
_SECONDS = 120


def why_unavailable(device: str) -> str | None:
    """Why a device cannot run a model, None if it can. In a process of its own, for drivers and engines may end theirs.

    Args:
        device: one of `DEVICES`.
    """
    code = "import sys; from bgert.backends.availability import main; main(sys.argv[1])"
    command = [sys.executable, "-c", code, device]
    try:
        done = subprocess.run(  # noqa: S603  # of our own words
            command, capture_output=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"it could not be tried: {error}"
    last = done.stdout.decode("utf-8", "replace").rsplit("\n", 1)[-1]
    if done.returncode == 0 and last.startswith("="):
        return last[1:] or None
    end = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    said = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
    return f"trying it ended its process with {end}: {said or 'it said nothing'}"


def main(device: str) -> None:
    """Print the reason, or nothing, after a `=` on the last line."""
    sys.stdout.write(f"\n={why_unavailable_here(device) or ''}")


def why_unavailable_here(device: str) -> str | None:
    """As `why_unavailable`, in this process."""
    try:
        if device == "cpu":
            _try_cpu()
        elif device == "cuda":
            from bgert.backends.cuda.check import count_devices

            count_devices()
        else:
            _try_tensorrt(device)
    except BgertError as error:
        return " ".join(str(error).split())
    return None


def _try_cpu() -> None:
    from bgert.backends.onnx_cpu import KERNELS
    from bgert.backends.onnxruntime_import import import_onnxruntime

    onnxruntime = import_onnxruntime()
    if tuple(int(part) for part in onnxruntime.__version__.split(".")[:2]) < (1, 20):
        raise EngineNotInstalledError(
            f"onnxruntime {onnxruntime.__version__} is older than 1.20: {install_extra('cpu')}"
        )
    try:
        onnxruntime.SessionOptions().register_custom_ops_library(str(KERNELS))
    except Exception as error:  # ONNX Runtime's own, which derive from Exception alone
        raise EngineNotInstalledError(f"bgert's operators cannot be loaded: {error}") from None


def _try_tensorrt(device: str) -> None:
    """In the order in which the backend asks."""
    from bgert.backends.cuda_runtime import CudaRuntime
    from bgert.backends.tensorrt.library import import_runtime
    from bgert.backends.tensorrt.rtx import check_gpu

    cuda = CudaRuntime(device)
    cuda.device_count()
    import_runtime(device.replace("-", "_"))
    if device == "tensorrt-rtx":
        check_gpu(cuda.gpu())
