"""Tiny checkpoints of any architecture of transformers."""

import pytest
import torch
import transformers

from random_network import draw_weights

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
MORE = {
    "albert": {"embedding_size": 32},
    "convbert": {"embedding_size": 64, "head_ratio": 2, "conv_kernel_size": 3},
    "data2vec-text": {"max_position_embeddings": 65},  # positions begin behind that of padding
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    "squeezebert": {"embedding_size": 64, **dict.fromkeys([f"{part}_groups" for part in "qkv"], 2)},
}
SPECIAL = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}


@pytest.fixture
def make(tmp_path, write_model):
    """A checkpoint that transformers names and writes, its weights drawn at random."""

    def build(model_type, end="Model", seed=3):
        settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
        folder = write_model(tmp_path / f"{model_type}{end}", weights={}, files={"tokenizer_config.json": settings})
        size = len((folder / "vocab.txt").read_text("utf-8").splitlines())
        sizes = SIZES | MORE.get(model_type, {}) | SPECIAL
        config = transformers.AutoConfig.for_model(
            model_type, **sizes, vocab_size=size, pad_token_id=0, type_vocab_size=2, num_labels=1
        )
        print(f"seed {seed}")
        torch.manual_seed(seed)
        auto = transformers.AutoModel if end == "Model" else transformers.AutoModelForSequenceClassification
        model = auto.from_config(config)
        draw_weights(model)
        model.save_pretrained(folder)
        return folder

    return build
