"""Hugging Face's optimum, a command in an environment of the user's: its pins exclude the transformers of `verify`."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

from bgert.errors import InvalidOptionError
from bgert_export.errors import ExtraNotInstalledError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.traced.checkpoint import TracedCheckpoint

__all__ = ["export_with_optimum", "require_optimum"]

OPSET = 18
_TASKS = {"encoder": "feature-extraction", "reranker": "text-classification"}
_VERSIONS = """
import importlib.metadata as m, json
print(json.dumps({name: m.version(name) for name in ("optimum", "optimum-onnx", "transformers", "torch")}))
"""
HOW = (
    "make it with `python -m venv optimum` and `optimum/bin/pip install optimum-onnx==0.1.0 onnxruntime`, then pass "
    "its python"
)


def require_optimum(python: str | Path | None) -> str:
    """The versions of what exports in an environment.

    Raises:
        InvalidOptionError: no environment is named.
        ExtraNotInstalledError: there is no Python there, or optimum is not installed in it.
    """
    if python is None:
        raise InvalidOptionError(f"--via optimum needs --optimum-python, the python of its environment: {HOW}")
    try:
        asked = subprocess.run(  # noqa: S603 - the user names the program
            [str(python), "-c", _VERSIONS], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ExtraNotInstalledError(f"cannot run {python}: {error}; {HOW}") from None
    if asked.returncode:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ExtraNotInstalledError(f"{python} has no optimum-onnx ({reason}): {HOW}")
    return ", ".join(f"{name} {version}" for name, version in json.loads(asked.stdout).items())


def export_with_optimum(checkpoint: TracedCheckpoint, folder: Path, python: str | Path | None) -> tuple[Path, str]:
    """Write the padded graph of a checkpoint into a folder.

    Returns:
        The file, and the versions that wrote it.

    Raises:
        InvalidOptionError, ExtraNotInstalledError: see `require_optimum`.
        UnsupportedCheckpointError: optimum cannot export the network.
    """
    versions = require_optimum(python)
    command = [str(python), "-m", "optimum.exporters.onnx", "--model", str(checkpoint.transformer_folder.resolve())]
    command += ["--task", _TASKS[checkpoint.architecture.kind], "--library", "transformers", "--opset", str(OPSET)]
    # What it compares by itself is compared here, with the transformers of this environment.
    command += ["--no-post-process", str(folder.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - as above
    path = folder / "model.onnx"
    if done.returncode or not path.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnsupportedCheckpointError(
            f"optimum cannot export this {checkpoint.architecture.model_type} ({versions}): {reason[:500]}"
        )
    return path, versions
