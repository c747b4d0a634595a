"""What FlagEmbedding 1.4.2 knows of a model by its name: which class, pooling and format of the query's instruction."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from bgert.errors import InvalidOptionError
from bgert.model_folder import MANIFEST_NAME, Manifest

__all__ = ["ENCODERS", "RERANKERS", "Known", "by_class_or_name"]


class Known(NamedTuple):
    """What goes with a name."""

    class_name: str
    pooling: str = "cls"
    query_format: str = "{}{}"


_INSTRUCT, _TAGS = "Instruct: {}\nQuery: {}", "<instruct>{}\n<query>{}"


def _encoders() -> dict[str, Known]:
    cls, mean = Known("FlagModel"), Known("FlagModel", "mean")
    sizes = ("small", "base", "large")
    known = {
        f"bge-{size}-{language}{version}": cls
        for size, language, version in product(sizes, ("en", "zh"), ("", "-v1.5"))
    }
    known |= {f"{name}-{size}{version}": mean for name, size, version in product(("e5",), sizes, ("", "-v2"))}
    known |= {f"{name}-{size}": mean for name, size in product(("multilingual-e5", "gte"), sizes)}
    known |= {f"gte-{size}-zh": cls for size in sizes}
    known |= dict.fromkeys(("gte-multilingual-base", "gte-large-en-v1.5", "gte-base-en-v1.5"), cls)
    known["bce-embedding-base_v1"] = cls
    known["multilingual-e5-large-instruct"] = Known("FlagModel", "mean", _INSTRUCT)
    known["bge-m3"] = Known("BGEM3FlagModel")
    language_models = {
        _TAGS: ("bge-code-v1", "bge-multilingual-gemma2"),
        "Instruct: {}\nQuery:{}": ("Qwen3-Embedding-0.6B", "Qwen3-Embedding-4B", "Qwen3-Embedding-8B"),
        _INSTRUCT: (
            "bge-reasoner-embed-qwen3-8b-0923",
            "e5-mistral-7b-instruct",
            "gte-Qwen2-7B-instruct",
            "gte-Qwen2-1.5B-instruct",
            "gte-Qwen1.5-7B-instruct",
            "SFR-Embedding-2_R",
            "SFR-Embedding-Mistral",
            "Linq-Embed-Mistral",
        ),
    }
    for query_format, names in language_models.items():
        known |= dict.fromkeys(names, Known("FlagLLMModel", "last_token", query_format))
    known["bge-en-icl"] = Known("FlagICLModel", "last_token", _TAGS)
    return known


ENCODERS = _encoders()
RERANKERS = {
    **dict.fromkeys(
        (
            "bge-reranker-base",
            "bge-reranker-large",
            "bge-reranker-v2-m3",
            "jina-reranker-v2-base-multilingual",
            "gte-multilingual-reranker-base",
            "bce-reranker-base_v1",
            "jina-reranker-v1-turbo-en",
        ),
        Known("FlagReranker"),
    ),
    "bge-reranker-v2-gemma": Known("FlagLLMReranker"),
    "bge-reranker-v2-minicpm-layerwise": Known("LayerWiseFlagLLMReranker"),
    "bge-reranker-v2.5-gemma2-lightweight": Known("LightWeightFlagLLMReranker"),
}
_HERE = ("FlagModel", "BGEM3FlagModel", "FlagReranker")
_BASE, _M3 = "encoder-only-base", "encoder-only-m3"


def by_class_or_name(path: str | Path, model_class: Any, table: dict[str, Known]) -> Known:
    """What FlagEmbedding's automatic classes would take.

    Args:
        path: the model; its last part is the name, or the part before it where that is `checkpoint-...`. A model
            folder of another name goes by the checkpoint that it was exported from.
        model_class: of FlagEmbedding's, as text or as its enumeration; then the name does not count.
        table: `ENCODERS` or `RERANKERS`.

    Raises:
        InvalidOptionError: a class that is not there, or an unknown name.
    """
    if model_class is not None:
        value = getattr(model_class, "value", model_class)
        if value == _M3 and table is ENCODERS:
            return Known("BGEM3FlagModel")
        if value != _BASE:
            here = f"{_BASE!r} and {_M3!r} are" if table is ENCODERS else f"{_BASE!r} is"
            raise InvalidOptionError(f"model_class is {value!r}: only {here} here")
        return Known("FlagModel" if table is ENCODERS else "FlagReranker")
    names = [_name(str(path))]
    if names[0] not in table and (Path(path) / MANIFEST_NAME).exists():
        source = Manifest.read(path).source
        names += [_name(str(source[key])) for key in ("id", "path") if source.get(key)]
    name = next((name for name in names if name in table), None)
    if name is None:
        raise InvalidOptionError(
            f"FlagEmbedding knows no {' or '.join(map(repr, names))}: pass model_class={_BASE!r}, and pooling_method "
            "and query_instruction_format where they are not 'cls' and '{}{}'"
        )
    known = table[name]
    if known.class_name not in _HERE:
        raise InvalidOptionError(f"{name} is FlagEmbedding's {known.class_name}, which is not here")
    return known


def _name(path: str) -> str:
    last, parent = Path(path).name, Path(path).parent.name
    return parent if last.startswith("checkpoint-") else last
