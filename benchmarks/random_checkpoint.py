"""A checkpoint of a real model's shape with seeded random weights, to measure speed and memory without the real ones.

    python benchmarks/random_checkpoint.py bge-base --tokenizer CHECKPOINT --output FOLDER

Its vectors mean nothing. Weights have the scale of trained ones, with a few LayerNorm channels twenty times as strong
as the rest, since that is what makes reduced precision hard.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bgert_export.architecture import Architecture
from bgert_export.families import FAMILIES

# name: layers, hidden size, heads, vocabulary, whether it is a reranker (with XLM-RoBERTa's vocabulary one of those)
GEOMETRIES = {
    "minilm": (6, 384, 12, 30522, False),
    "bge-small": (12, 384, 12, 30522, False),
    "bge-small-zh": (4, 512, 8, 21128, False),
    "bge-base": (12, 768, 12, 30522, False),
    "bge-large": (24, 1024, 16, 30522, False),
    "minilm-reranker": (6, 384, 12, 30522, True),
    "bert-reranker": (12, 768, 12, 30522, True),
    "bge-reranker-base": (12, 768, 12, 250002, True),
    "bge-reranker-large": (24, 1024, 16, 250002, True),
}
# name: the fields of config.json as the published checkpoints have them, but for what changes no arithmetic.
_NOMIC = {
    "model_type": "nomic_bert",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30528,
    "n_positions": 8192,
    "rotary_emb_base": 1000,
    "activation_function": "swiglu",
    "type_vocab_size": 2,
    "layer_norm_epsilon": 1e-12,
    "pad_token_id": 0,
}
_GTE = {
    "model_type": "new",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 8192,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "vocab_size": 30528,
    "type_vocab_size": 0,
    "rope_theta": 500000,
    "rope_scaling": {"type": "ntk", "factor": 2.0},
    "pad_token_id": 0,
}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_MULTILINGUAL = {
    "vocab_size": 250048,
    "type_vocab_size": 1,
    "rope_theta": 20000,
    "rope_scaling": {"type": "ntk", "factor": 8.0},
    "pad_token_id": 1,
}
_MODERN = {
    "model_type": "modernbert",
    "hidden_size": 768,
    "num_hidden_layers": 22,
    "num_attention_heads": 12,
    "intermediate_size": 1152,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "vocab_size": 50368,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "local_attention": 128,
    "pad_token_id": 0,
}
_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
}
_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1}
PUBLISHED: dict[str, dict[str, Any]] = {
    "nomic-embed-v1.5": _NOMIC,
    "arctic-m-long": _NOMIC,
    "gte-base-en-v1.5": _GTE,
    "gte-large-en-v1.5": _GTE | _LARGE | {"type_vocab_size": 2, "rope_theta": 160000},
    "stella-400m": _GTE | _LARGE | {"type_vocab_size": 2, "rope_theta": 160000},
    "gte-multilingual": _GTE | _MULTILINGUAL,
    "gte-multilingual-reranker": _GTE | _MULTILINGUAL | {"architectures": ["NewForSequenceClassification"]},
    "arctic-m-v2.0": _GTE | _MULTILINGUAL | {"model_type": "gte", "rope_theta": 160000, "rope_scaling": None},
    "modernbert-base": _MODERN,
    "all-mpnet-base-v2": _BASE | {
        "model_type": "mpnet",
        "max_position_embeddings": 514,
        "relative_attention_num_buckets": 32,
        "vocab_size": 30527,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "distilbert-base": {
        "model_type": "distilbert",
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
        "vocab_size": 30522,
        "pad_token_id": 0,
    },
    "roberta-base": _BASE | _ROBERTA | {"model_type": "roberta", "vocab_size": 50265},
    "camembert-base": _BASE | _ROBERTA | {"model_type": "camembert", "vocab_size": 32005},
    "electra-base": _BASE | {
        "model_type": "electra",
        "embedding_size": 768,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "vocab_size": 30522,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
    "multilingual-e5-base": _BASE | _ROBERTA | {"model_type": "xlm-roberta", "vocab_size": 250002},
    "bge-m3": _BASE | _LARGE | _ROBERTA | {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "max_position_embeddings": 8194,
    },
}  # fmt: skip
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
)


def config_of(geometry: str) -> dict[str, Any]:
    """`config.json` of a geometry."""
    if geometry in PUBLISHED:
        config = dict(PUBLISHED[geometry])
        config.setdefault("architectures", [FAMILIES[config["model_type"]].name + "Model"])
        labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
        return config | labels if "Classification" in config["architectures"][0] else config
    layers, hidden, heads, vocabulary, reranker = GEOMETRIES[geometry]
    xlm = vocabulary == 250002
    task = "ForSequenceClassification" if reranker else "Model"
    config = {
        "architectures": [("XLMRoberta" if xlm else "Bert") + task],
        "model_type": "xlm-roberta" if xlm else "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "max_position_embeddings": 514 if xlm else 512,
        "type_vocab_size": 1 if xlm else 2,
        "layer_norm_eps": 1e-5 if xlm else 1e-12,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "pad_token_id": 1 if xlm else 0,
    }
    if reranker:
        config |= {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    return config


def write(
    geometry: str, tokenizer: Path, output: Path, seed: int, *, deviation: float = 0.04, strong: float = 20.0
) -> None:
    """Write config, weights and the tokenizer's files.

    Args:
        geometry: a name of `GEOMETRIES` or `PUBLISHED`.
        tokenizer: folder to take the tokenizer's files from.
        output: new folder.
        seed: of the weights.
        deviation: of the weights of matrices.
        strong: times what the rest is a few channels of a LayerNorm are.
    """
    config = config_of(geometry)
    output.mkdir(parents=True)
    (output / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, output / name)
    architecture = Architecture.from_config(config)
    if architecture.kind == "encoder":
        pooling = {"word_embedding_dimension": architecture.hidden_size, "pooling_mode_cls_token": True}
        modules = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (path, name) in enumerate(
                [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
            )
        ]
        (output / "1_Pooling").mkdir()
        (output / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (output / "modules.json").write_text(json.dumps(modules))
    from safetensors.numpy import save_file  # here, so that --help needs numpy alone

    draw = np.random.default_rng(seed)
    weights = {}
    for name, shape in architecture.weight_shapes().items():
        value = draw.standard_normal(shape, np.float32)
        if name.endswith("LayerNorm.weight"):
            value = 1 + 0.1 * value
            value[draw.choice(shape[0], 3, replace=False)] *= strong
        else:
            value *= 0.05 if len(shape) == 1 else deviation
        weights[name] = value
    save_file(named(architecture, weights), output / "model.safetensors", metadata={"format": "pt"})


def named(architecture: Architecture, weights: dict[str, Any]) -> dict[str, Any]:
    """The weights under the names of the family's own checkpoints, several matrices in one where it has them so."""
    family = architecture.family
    left, stored = dict(weights), {}
    for part, ours in family.parts.items():
        whole = (ours,) if isinstance(ours, str) else ours
        for layer in range(architecture.num_hidden_layers):
            for end in ("weight", "bias"):
                names = [f"encoder.layer.{layer}.{name}.{end}" for name in whole]
                if names[0] in left:
                    matrices = [left.pop(name) for name in names]
                    stored[f"{family.layers}.{layer}.{part}.{end}"] = np.concatenate(matrices)
    theirs = {ours: name for name, ours in family.around.items()}
    for name, value in left.items():
        stem, _, end = name.rpartition(".")
        stored[f"{theirs.get(stem, stem)}.{end}"] = value
    if architecture.kind == "encoder":
        return stored
    return {
        name if name.startswith(("classifier", "head.")) else family.prefix + name: value
        for name, value in stored.items()
    }


def main() -> int:
    """Write one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("geometry", choices=[*GEOMETRIES, *PUBLISHED])
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint folder to take the tokenizer from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.geometry, args.tokenizer, args.output, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
