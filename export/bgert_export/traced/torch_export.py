"""PyTorch's own exporter (`torch.onnx.export`, dynamo) on a network of transformers."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any

from bgert.errors import install_extra
from bgert_export.errors import ExtraNotInstalledError, UnsupportedCheckpointError
from bgert_export.torch_model import load_model, reads_token_types
from bgert_export.verification.torch_reference import quiet, require_torch

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.traced.checkpoint import TracedCheckpoint

__all__ = ["export_with_torch", "require_onnxscript"]

OPSET = 20


def require_onnxscript() -> None:
    """Raise ExtraNotInstalledError unless what PyTorch's exporter needs is installed."""
    require_torch()
    if importlib.util.find_spec("onnxscript") is None:
        raise ExtraNotInstalledError(f"--via torch needs onnxscript, which is not installed: {install_extra('trace')}")


def export_with_torch(checkpoint: TracedCheckpoint, folder: Path) -> tuple[Path, str]:
    """Write the padded graph of a checkpoint into a folder.

    Returns:
        The file, and the versions that wrote it.

    Raises:
        ExtraNotInstalledError: torch, transformers or onnxscript is missing.
        UnsupportedCheckpointError: PyTorch cannot export the network.
        CheckpointError: transformers cannot load it.
    """
    require_onnxscript()
    import onnxscript
    import torch
    import transformers

    arch = checkpoint.architecture
    with quiet():
        # Attention as plain products: fused forms have no ONNX operator that every engine has.
        model = load_model(checkpoint.transformer_folder, arch.kind, arch.num_labels, attn_implementation="eager")
    typed = reads_token_types(model) and arch.reads_token_types
    wrapped = _wrapped(model, typed=typed)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]
    shape = (2, min(7, arch.max_tokens))
    given = (
        torch.full(shape, min(5, arch.vocab_size - 1)),
        torch.ones(shape, dtype=torch.int64),
        *([torch.zeros(shape, dtype=torch.int64)] if typed else []),
    )
    texts = torch.export.Dim("texts", min=1, max=1 << 16)
    length = torch.export.Dim("length", min=1, max=arch.max_tokens)
    path = folder / "torch.onnx"
    try:
        with quiet(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                wrapped,
                given,
                str(path),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=["logits" if arch.kind == "reranker" else "last_hidden_state"],
                dynamic_shapes=({0: texts, 1: length},) * len(names),
                external_data=True,
                verbose=False,
            )
    except Exception as error:  # whatever PyTorch's exporter and its parts raise
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise UnsupportedCheckpointError(
            f"PyTorch cannot export this {arch.model_type} as a graph for texts of any length ({reason}): try "
            "--via optimum"
        ) from error
    versions = (
        f"torch {torch.__version__}, onnxscript {onnxscript.__version__}, transformers {transformers.__version__}"
    )
    return path, versions


def _wrapped(model: Any, *, typed: bool) -> Any:
    """The network as a function from its inputs to the one output that is read."""
    import torch

    class Wrapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {"token_type_ids": token_type_ids} if typed else {}
            output = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
            return output.logits if hasattr(output, "logits") else output.last_hidden_state

    return Wrapped().eval()
