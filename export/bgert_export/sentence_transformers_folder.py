"""The two files by which a model folder is a folder of sentence-transformers too.

sentence-transformers reads them, bgert never does, and `model.save` writes them anew: the manifest does not list them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import bgert
from bgert_export.sentence_transformers_files import MODULES, PROMPTS

if TYPE_CHECKING:
    from pathlib import Path

    from bgert_export.settings import Settings

__all__ = ["write_sentence_transformers_files"]

_CLASSES = {
    "encoder": ("SentenceTransformer", "bgert.integrations.sentence_transformers.EncoderModule"),
    "reranker": ("CrossEncoder", "bgert.integrations.sentence_transformers.RerankerModule"),
}


def write_sentence_transformers_files(folder: Path, kind: str, settings: Settings) -> None:
    """Write `modules.json`, which names bgert's module, and `config_sentence_transformers.json` with the prompts."""
    model_type, module = _CLASSES[kind]
    config: dict[str, Any] = {
        "model_type": model_type,
        "__version__": {"bgert": bgert.__version__},
        "prompts": settings.prompts,
        "default_prompt_name": settings.default_prompt,
    }
    if kind == "encoder":
        config["similarity_fn_name"] = settings.similarity
    else:
        config["activation_fn"] = settings.activation
    for name, content in (MODULES, [{"idx": 0, "name": "0", "path": "", "type": module}]), (PROMPTS, config):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
