"""Fields of `config.json`, read strictly: what is missing or unknown is an error that names the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.families import ENCODER, FAMILIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bgert_export.families import Family, Head

__all__ = [
    "FIXED_FIELDS",
    "activation_of",
    "epsilon_of",
    "head_pooling_of",
    "kind_of",
    "number_of_labels",
    "shown",
    "whole_number",
]

# Names in transformers' ACT2FN of one function; they differ in how they are computed, by roundings.
_ACTIVATIONS = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"), "gelu_tanh"),
    "relu": "relu",
}
_LARGEST = 2**31 - 1  # ids and positions are 32-bit
_SUPPORTED = ", ".join(name for family in FAMILIES.values() for name in family.classes)

# The first value is the default that transformers assumes.
FIXED_FIELDS: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def kind_of(config: Mapping[str, Any], model_type: str) -> str:
    """`encoder` or `reranker`, by the class in `architectures`."""
    classes = config.get("architectures")
    if classes is None:
        return ENCODER
    if not isinstance(classes, list) or len(classes) != 1 or not isinstance(classes[0], str):
        raise CheckpointError(f"config.json: architectures is {classes!r}, not a list of one class name")
    kind = ENCODER if classes == ["HF_ColBERT"] else FAMILIES[model_type].classes.get(classes[0])
    if kind is None:
        raise UnsupportedCheckpointError(
            f"config.json: architectures {classes[0]!r} with model_type {model_type!r} is not supported: "
            f"bgert exports {_SUPPORTED}"
        )
    return kind


def head_pooling_of(config: Mapping[str, Any], head: Head) -> str:
    """What the classifier reads."""
    found = config.get("classifier_pooling", head.poolings[0]) if len(head.poolings) > 1 else head.poolings[0]
    if found not in head.poolings:
        raise UnsupportedCheckpointError(
            f"config.json: classifier_pooling {shown(found)} is not supported: bgert exports "
            f"{' and '.join(head.poolings)}"
        )
    return str(found)


def activation_of(config: Mapping[str, Any], family: Family) -> str:
    """Of the feed-forward network."""
    field = family.config_name("hidden_act", config)
    allowed = family.activations or _ACTIVATIONS
    name = config.get(field, family.default_activation)
    if not isinstance(name, str) or name not in allowed:
        raise UnsupportedCheckpointError(
            f"config.json: {field} {shown(name)} is not supported: bgert exports {', '.join(allowed)}"
        )
    return allowed[name]


def whole_number(config: Mapping[str, Any], name: str, *, least: int = 1, default: int | None = None) -> int:
    """A field that is a whole number."""
    value = config.get(name, default)
    if value is None:
        raise CheckpointError(f"config.json has no {name}")
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST:
        raise CheckpointError(f"config.json: {name} is {shown(value)}, not a whole number from {least} to {_LARGEST}")
    return value


def epsilon_of(config: Mapping[str, Any], name: str, default: float) -> float:
    """Of LayerNorm."""
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1:
        raise CheckpointError(f"config.json: {name} is {shown(value)}, not a number between 0 and 1")
    return float(value)


def number_of_labels(config: Mapping[str, Any]) -> int:
    """As transformers: `num_labels` counts, then how many labels have a name, then two."""
    labels = config.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise CheckpointError(f"config.json: id2label is {shown(labels)}, not an object of names")
    named = 2 if labels is None else len(labels)
    return whole_number({"num_labels": named, **config}, "num_labels")


def shown(value: Any) -> str:
    """A value of the file for a message of one line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
