"""Tokenizers for checkpoints in the shapes of published models, made of two published vocabularies and a few texts."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "write_tokenizer"]

KINDS = ("bert", "mpnet", "xlm-roberta", "camembert", "roberta", "modernbert")
_CAMEMBERT_SIZE = 32005
_ROBERTA = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_BERT = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}


def write_tokenizer(kind: str, published: Path, folder: Path, max_tokens: int) -> Path:
    """Write a tokenizer's files into a new folder and return it.

    Args:
        kind: of `KINDS`.
        published: holds the folders `bert-base-uncased` and `xlm-roberta-base`.
        folder: new.
        max_tokens: its `model_max_length`.
    """
    folder.mkdir()
    config: dict[str, Any] = {}
    if kind == "bert":
        source = published / "bert-base-uncased"
        shutil.copy(source / "vocab.txt", folder)
        config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    elif kind == "mpnet":  # BERT's vocabulary between RoBERTa's special tokens
        words = (published / "bert-base-uncased" / "vocab.txt").read_text("utf-8").splitlines()
        lines = ["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]
        (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in lines), "utf-8")
        config = {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True}
        config |= _named(_ROBERTA | {"unk": "[UNK]"})
    elif kind in ("xlm-roberta", "camembert"):
        body = json.loads((published / "xlm-roberta-base" / "tokenizer.json").read_text("utf-8"))
        config = {"tokenizer_class": "XLMRobertaTokenizer"} | _named(_ROBERTA)
        if kind == "camembert":  # the most frequent pieces
            vocab = body["model"]["vocab"]
            unused = [[f"{token}NOTUSED", 0.0] for token in ("<s>", "</s>", "<unk>")]
            body["model"]["vocab"] = [*vocab[: min(_CAMEMBERT_SIZE, len(vocab)) - 4], *unused, vocab[-1]]
            for token in body["added_tokens"]:
                token["id"] = next(
                    at for at, (piece, _) in enumerate(body["model"]["vocab"]) if piece == token["content"]
                )
            config["tokenizer_class"] = "CamembertTokenizer"
        (folder / "tokenizer.json").write_text(json.dumps(body, ensure_ascii=False), "utf-8")
    else:
        _train(kind).save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "RobertaTokenizer"} | _named(_ROBERTA)
        if kind == "modernbert":
            config = {"tokenizer_class": "PreTrainedTokenizerFast"} | _named(_BERT)
            config |= {"model_input_names": ["input_ids", "attention_mask"]}
    config["model_max_length"] = max_tokens
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), "utf-8")
    return folder


def _named(tokens: dict[str, str]) -> dict[str, Any]:
    return {f"{name}_token": token for name, token in tokens.items()}


def _train(kind: str) -> Any:
    """Byte-level BPE with a family's special tokens at their places."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    from bgert.evaluation.sample_texts import sample_texts

    roberta = kind == "roberta"
    names = ["<s>", "<pad>", "</s>", "<unk>"] if roberta else ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = None if roberta else normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(400, seed=1), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>" if roberta else "[MASK]", lstrip=True, special=True)])
    first, last = (
        (token, int(tokenizer.token_to_id(token) or 0)) for token in (("<s>", "</s>") if roberta else names[2:])
    )
    if roberta:
        tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[first, last]
        )
    return tokenizer
