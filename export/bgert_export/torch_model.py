"""A checkpoint's network in transformers, by name of the class and never by code that the checkpoint brings."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.verification.native_classes import NativeClass

__all__ = ["MASKED_LM", "load_model", "reads_token_types", "torch_class", "transformers_config"]


MASKED_LM = "masked language model"


def transformers_config(folder: Path) -> Any:
    """The configuration of a checkpoint as transformers reads it.

    Raises:
        UnsupportedCheckpointError: transformers has no such model type of its own.
        CheckpointError: transformers cannot read it.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    raw, _ = transformers.PreTrainedConfig.get_config_dict(str(folder))
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        raise UnsupportedCheckpointError(
            f"config.json: model_type {model_type!r} is none of transformers {transformers.__version__}'s own, and "
            "code that a checkpoint brings is never run"
        )
    try:
        return CONFIG_MAPPING[model_type].from_pretrained(str(folder))
    except Exception as error:  # transformers raises whatever its parts raise
        raise CheckpointError(f"transformers cannot read {folder}/config.json: {_line(error)}") from error


def torch_class(config: Any, kind: str) -> Any:
    """The class of transformers for an `encoder`, a `reranker` or a MASKED_LM.

    Raises:
        UnsupportedCheckpointError: there is none.
    """
    import transformers
    from transformers.models.auto import modeling_auto as auto

    names = {
        "encoder": auto.MODEL_MAPPING_NAMES,
        "reranker": auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MASKED_LM: auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    }[kind]
    name = names.get(config.model_type)
    if not isinstance(name, str) or getattr(config, "is_encoder_decoder", False):
        raise UnsupportedCheckpointError(
            f"config.json: transformers {transformers.__version__} has no {kind} of model_type {config.model_type!r}"
        )
    return getattr(transformers, name)


def reads_token_types(model: Any) -> bool:
    """Whether the network has an input for types of tokens."""
    return "token_type_ids" in inspect.signature(model.forward).parameters


def load_model(
    folder: Path, kind: str, num_labels: int | None, *, native: NativeClass | None = None, **options: Any
) -> Any:
    """The network with its weights, in float32, for inference; of a `native` class where config.json says another.

    Raises:
        CheckpointError: transformers cannot load it, or finds no weights for a part of it.
    """
    config = transformers_config(folder) if native is None else native.config(num_labels)
    chosen = torch_class(config, kind)
    if native is not None:
        options["config"] = config
    elif num_labels is not None:
        options["num_labels"] = num_labels
    if "add_pooling_layer" in inspect.signature(chosen.__init__).parameters and kind == "encoder":
        options["add_pooling_layer"] = False
    try:
        model, loading = chosen.from_pretrained(str(folder), output_loading_info=True, **options)
    except Exception as error:  # as above
        raise CheckpointError(f"transformers cannot load {folder}: {_line(error)}") from error
    # transformers draws what is missing at random, and a pooler is all that an encoder can do without.
    if missing := sorted(name for name in loading["missing_keys"] if "pooler" not in name or kind != "encoder"):
        raise CheckpointError(f"the checkpoint has no weight {missing[0]}, which {chosen.__name__} needs")
    if native is not None:
        native.complete(model)
    return model.float().eval()


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
