"""transformers' own classes for checkpoints whose files were written for code of their own, which is never run.

Such a config.json has other names, or a `model_type` that transformers does not know; its weights transformers renames
by itself. NTK scaling is in none of its classes: the frequencies are put into the model, computed here with torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bgert_export.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgert_export.checkpoint import Hyperparameters
    from bgert_export.rotary import Rotary

__all__ = ["NativeClass", "native_class"]


@dataclass(frozen=True)
class NativeClass:
    """The class of transformers that computes a network whose config.json it does not read."""

    architecture: Architecture
    rotary: Rotary

    def config(self, num_labels: int | None) -> Any:
        """Its configuration."""
        import transformers

        arch = self.architecture
        names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        labels = {} if num_labels is None else {"num_labels": num_labels}
        return getattr(transformers, f"{arch.family.torch_name}Config")(
            **{name: getattr(arch, name) for name in (*names, "max_position_embeddings", "layer_norm_eps")},
            **labels,
            type_vocab_size=arch.type_vocab_size if arch.reads_token_types else 0,
            hidden_act=arch.activation,
            pad_token_id=arch.pad_token_id,
            rope_parameters={"rope_type": "default", "rope_theta": self.rotary.theta},
        )

    def complete(self, model: Any) -> None:
        """Put NTK scaling into the model: theta times the factor, every frequency divided by factor^(2 / size)."""
        import torch

        factor, size = self.rotary.ntk_factor, self.architecture.head_size
        if factor == 1:
            return
        steps = torch.arange(0, size, 2).float() / size
        frequencies = 1.0 / ((self.rotary.theta * factor) ** steps) / factor ** (2 / size)
        found = [module for module in model.modules() if hasattr(module, "inv_freq")]
        if len(found) != 1:
            raise AssertionError(f"the model has {len(found)} tables of frequencies")
        found[0].inv_freq = frequencies


def native_class(architecture: Hyperparameters, config: Mapping[str, Any]) -> NativeClass | None:
    """None where transformers reads config.json by itself, so that what it reads is compared too."""
    import transformers

    if not isinstance(architecture, Architecture) or (rotary := architecture.rotary) is None:
        return None
    read = "hidden_size" in config and config["model_type"] in transformers.CONFIG_MAPPING
    return None if read and rotary.ntk_factor == 1 else NativeClass(architecture, rotary)
