"""bgert_export: from a PyTorch checkpoint to a verified model folder that `bgert` runs without PyTorch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bgert.model_folder import Manifest

__all__ = ["export"]

INT8_FLOOR = 0.998  # least mean cosine of an int8 graph to the fp32 graph
FP8_FLOOR = 0.998  # of an fp8 graph

_NEEDED = ("onnx", "huggingface_hub", "onnxruntime")


def export(
    source: str | Path,
    destination: str | Path,
    *,
    revision: str | None = None,
    pooling: str | None = None,
    normalize: bool | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    max_tokens: int | None = None,
    targets: Sequence[str] = ("cpu",),
    int8_floor: float = INT8_FLOOR,
    fp8_floor: float = FP8_FLOOR,
    verify: bool = True,
    force: bool = False,
    ignore_unknown_weights: bool = False,
    via: str | None = None,
    optimum_python: str | Path | None = None,
    tokenizer: str = "bgert",
    progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Export a BERT-family checkpoint to a model folder, prove it equal to PyTorch, and return its manifest.

    Args:
        source: a checkpoint folder, or a hub id such as `BAAI/bge-small-en-v1.5`; a folder wins.
        destination: the model folder to make. It appears whole or not at all.
        revision: branch, tag or commit of a hub id.
        pooling: `cls`, `mean` or another of `bgert_export.pooling`, several joined by `+`; None to take what the
            checkpoint or the table of known models says.
        normalize: whether vectors get length one; None as above.
        query_prompt: text before queries; "" for none, None as above.
        document_prompt: text before documents; as `query_prompt`.
        max_tokens: longest input, special tokens counted; None for the checkpoint's own limit.
        targets: the graphs to write, see `bgert_export.targets.TARGETS`.
        int8_floor: least mean cosine (rerankers: correlation of scores) of an int8 graph to the fp32 graph.
        fp8_floor: the same for an fp8 graph.
        verify: compare the graphs with the PyTorch checkpoint; needs torch and transformers.
        force: replace a model folder that is already at `destination`.
        ignore_unknown_weights: leave out weights that the network of config.json does not have, as transformers does.
        via: let `torch` (torch.onnx.export) or `optimum` write the graph, for a network that bgert has no writer
            for; the target is `cpu`, in fp32 and padded.
        optimum_python: the Python of an environment with optimum-onnx, for `via="optimum"`.
        tokenizer: what makes ids in the folder: `bgert`, or for tokenizers that it does not have `huggingface`: the
            package tokenizers, built in Rust, at its speed; who opens the folder needs the extra `hf-tokenizers`.
        progress: called with a line of text at each step and for each choice.

    Raises:
        ModelNotFoundError: there is no such folder or hub id.
        CheckpointError: the checkpoint is damaged, or of a kind that bgert does not export
            (`UnsupportedCheckpointError`).
        UndecidedError: the checkpoint leaves pooling or normalisation open; the message names the argument.
        InvalidOptionError: an argument does not fit the model.
        DownloadError: the hub cannot be reached or refuses.
        DestinationError: the destination exists, or another export is writing it.
        WriteError: the destination cannot be written.
        QuantizationError: an int8 or fp8 graph would be below the floor; nothing is written.
        VerificationError: the graph's vectors differ from PyTorch's; nothing is written.
        ExtraNotInstalledError: a library is missing; the message names the extra that brings it.
        PlatformError: this is Windows.
    """
    _require_posix()
    _require_export_extra()
    from bgert_export.pipeline import export_checkpoint
    from bgert_export.settings import Options

    options = Options(pooling, normalize, query_prompt, document_prompt, max_tokens)
    return export_checkpoint(
        source,
        destination,
        revision=revision,
        options=options,
        targets=targets,
        int8_floor=int8_floor,
        fp8_floor=fp8_floor,
        verify=verify,
        force=force,
        ignore_unknown_weights=ignore_unknown_weights,
        via=via,
        optimum_python=optimum_python,
        tokenizer=tokenizer,
        progress=progress,
    )


def _require_posix() -> None:
    """Locks and renames of a folder are POSIX's."""
    from bgert_export.errors import PlatformError

    if importlib.util.find_spec("fcntl") is None:
        raise PlatformError(
            "export runs on Linux and macOS, not on Windows: export there (or in WSL) and copy the model folder"
        )


def _require_export_extra() -> None:
    from bgert.errors import install_extra
    from bgert_export.errors import ExtraNotInstalledError

    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise ExtraNotInstalledError(f"export needs {name}, which is not installed: {install_extra('export')}")
