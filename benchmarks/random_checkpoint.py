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
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "sentencepiece.bpe.model",
)


def config_of(geometry: str) -> dict[str, Any]:
    """`config.json` of a geometry."""
    layers, hidden, heads, vocabulary, reranker = GEOMETRIES[geometry]
    xlm = vocabulary == 250002
    task = "ForSequenceClassification" if reranker else "Model"
    config: dict[str, Any] = {
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


def write(geometry: str, tokenizer: Path, output: Path, seed: int) -> None:
    """Write config, weights and the tokenizer's files."""
    config = config_of(geometry)
    output.mkdir(parents=True)
    (output / "config.json").write_text(json.dumps(config, indent=2))
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, output / name)
    architecture = Architecture.from_config(config)
    if architecture.kind == "encoder":
        pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_cls_token": True}
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
            value[draw.choice(shape[0], 3, replace=False)] *= 20
        else:
            value *= 0.05 if len(shape) == 1 else 0.04
        in_encoder = architecture.kind == "encoder" or name.startswith("classifier")
        weights[name if in_encoder else architecture.family.prefix + name] = value
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})


def main() -> int:
    """Write one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("geometry", choices=GEOMETRIES)
    parser.add_argument("--tokenizer", type=Path, required=True, help="checkpoint folder to take the tokenizer from")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write(args.geometry, args.tokenizer, args.output, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
