"""Reads the tokenizer files of a Hugging Face checkpoint the way `transformers.AutoTokenizer` (version 5) does.

`BertTokenizer` there builds its pipeline from the vocabulary and `tokenizer_config.json`; of `tokenizer.json` it uses
the vocabulary and the added tokens alone. Only classes without a pipeline of their own run `tokenizer.json` as it is.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bgert.errors import ModelFolderError
from bgert.paths import existing_folder
from bgert.tokenizer.added_tokens import (
    BERT_TOKENS,
    MPNET_TOKENS,
    AddedVocabulary,
    add_from_config,
    named_tokens,
)
from bgert.tokenizer.checkpoint_files import (
    BERT_CLASSES,
    CAMEMBERT_CLASS,
    MPNET_CLASS,
    PLAIN_CLASSES,
    ROBERTA_CLASS,
    TYPED_CLASSES,
    XLMR_CLASS,
    Checkpoint,
)
from bgert.tokenizer.decoders import note_other_offsets, note_other_wordpiece
from bgert.tokenizer.spec import (
    VOCAB_NAME,
    TemplateSpec,
    TokenizerSpec,
    WordPieceSettings,
    build,
)
from bgert.tokenizer.templates import bert_templates, read_templates, roberta_templates

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_checkpoint"]


def read_checkpoint(path: str | Path) -> TokenizerSpec:
    """Read the tokenizer files of a Hugging Face checkpoint.

    Raises:
        ModelNotFoundError: the folder does not exist.
        ModelFolderError: it has no tokenizer that bgert knows; the message names the file and the field.
    """
    # Not at the top: reading BERT's needs none of it.
    from bgert.tokenizer.bpe_checkpoint import VOCAB_JSON_NAME
    from bgert.tokenizer.unigram_checkpoint import MODEL_NAME

    folder = existing_folder(path)
    checkpoint = Checkpoint.load(folder)
    names = (VOCAB_NAME, MODEL_NAME, VOCAB_JSON_NAME)
    if not checkpoint.tokenizer and not any((folder / name).exists() for name in names):
        raise checkpoint.error(f"there is neither tokenizer.json nor {' nor '.join(names)}, so no tokenizer to read")
    if checkpoint.config.get("truncation_side", "right") != "right":
        raise checkpoint.error("tokenizer_config.json: truncation_side is not 'right', which bgert does not do")
    if checkpoint.config.get("split_special_tokens"):
        raise checkpoint.error(
            "tokenizer_config.json: split_special_tokens is set: remove it and pass split_special_tokens=True instead"
        )
    return _with_given_types(_read_kind(checkpoint), checkpoint)


def _read_kind(checkpoint: Checkpoint) -> TokenizerSpec:
    """What the class that AutoTokenizer would take makes of the folder."""
    # Not at the top: reading BERT's needs none of it.
    from bgert.tokenizer.bpe_checkpoint import read_bpe_json, read_roberta
    from bgert.tokenizer.unigram_checkpoint import read_camembert, read_unigram_json, read_xlm_roberta

    name = checkpoint.class_name
    model_type = checkpoint.model_type
    if name == XLMR_CLASS and model_type in ("Unigram", None):
        return read_xlm_roberta(checkpoint)
    if name == CAMEMBERT_CLASS and model_type == "Unigram":
        return read_camembert(checkpoint)
    if name in PLAIN_CLASSES and model_type == "Unigram":
        return read_unigram_json(checkpoint)
    if name == ROBERTA_CLASS and model_type in ("BPE", None):
        return read_roberta(checkpoint)
    if name in PLAIN_CLASSES and model_type == "BPE":
        return read_bpe_json(checkpoint)
    if name in BERT_CLASSES and model_type in ("WordPiece", None):
        return _read_bert(checkpoint)
    if name in PLAIN_CLASSES and model_type == "WordPiece":
        return _read_tokenizer_json(checkpoint)
    if name in PLAIN_CLASSES and model_type is None:
        checkpoint.notes.append("no file names a tokenizer class; vocab.txt is read as BertTokenizer's")
        return _read_bert(checkpoint)
    if name == CAMEMBERT_CLASS and model_type is None:
        raise checkpoint.error(f"there is no tokenizer.json, the only file from which bgert reads {name}")
    if name in PLAIN_CLASSES or name in BERT_CLASSES or name in (XLMR_CLASS, CAMEMBERT_CLASS, ROBERTA_CLASS):
        raise checkpoint.unsupported(f"tokenizer.json: model.type {model_type!r} is not supported")
    raise checkpoint.unsupported(f"tokenizer_class {name!r} is not supported")


def _with_given_types(spec: TokenizerSpec, checkpoint: Checkpoint) -> TokenizerSpec:
    """Token types as a call of AutoTokenizer hands them to a model: where it gives none, the model takes 0."""
    typed = checkpoint.class_name in TYPED_CLASSES or (not checkpoint.tokenizer and checkpoint.class_name is None)
    names = checkpoint.config.get("model_input_names", ["token_type_ids"] if typed else [])
    if not isinstance(names, list):
        raise checkpoint.error(f"tokenizer_config.json: model_input_names is {names!r:.80}, not a list of names")
    if "token_type_ids" in names:
        return spec
    single, pair = (
        TemplateSpec(prefix=template.prefix, middle=template.middle, suffix=template.suffix)
        for template in (spec.single, spec.pair)
    )
    if (single, pair) != (spec.single, spec.pair):
        spec.notes.append("all tokens have type 0: model_input_names, or the class's default, has no token_type_ids")
    return replace(spec, single=single, pair=pair)


def _read_bert(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `transformers.BertTokenizer`, or `MPNetTokenizer`, makes of the folder."""
    mpnet = checkpoint.class_name == MPNET_CLASS
    if checkpoint.tokenizer:
        vocab, size = checkpoint.read_vocab_object(
            checkpoint.section("model").get("vocab"), "tokenizer.json: model.vocab"
        )
    else:
        vocab, size = checkpoint.read_vocab_txt(checkpoint.folder / VOCAB_NAME)
    names = named_tokens(
        checkpoint.config,
        checkpoint.special_tokens_map,
        MPNET_TOKENS if mpnet else BERT_TOKENS,
        mask_takes_blanks=mpnet,
    )
    known = set(vocab) - {""}
    required = {}
    for name in ("unk_token", "cls_token", "sep_token"):
        token = names[name]
        if token is None or token.content not in known:
            raise checkpoint.error(f"the vocabulary lacks the {name} {token and token.content!r}")
        required[name] = token.content
    model = WordPieceSettings(
        unk_token=required["unk_token"],
        handle_chinese_chars=bool(checkpoint.flag("tokenize_chinese_chars", True)),
        strip_accents=checkpoint.flag("strip_accents", None),
        lowercase=bool(checkpoint.flag("do_lower_case", True)),
    )
    added = AddedVocabulary(vocab, size)
    vocab = checkpoint.without_line_breaks(vocab)
    add_from_config(added, checkpoint, names)
    cls_id, sep_id = added.id_of(required["cls_token"]), added.id_of(required["sep_token"])
    single, pair = (roberta_templates if mpnet else bert_templates)(cls_id, sep_id)
    _note_differences(checkpoint, model, (single, pair), vocab)
    return TokenizerSpec(
        "wordpiece", model, vocab, added.tokens(), single, pair, checkpoint.max_length, checkpoint.notes
    )


def _read_tokenizer_json(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `tokenizers.Tokenizer.from_file` makes of `tokenizer.json`."""
    normalizer = dict(checkpoint.section("normalizer"))
    if normalizer.pop("type", None) != "BertNormalizer":
        kind = checkpoint.section("normalizer").get("type")
        raise checkpoint.unsupported(
            f"tokenizer.json: normalizer.type {kind!r} is not supported, only 'BertNormalizer'"
        )
    kind = checkpoint.section("pre_tokenizer").get("type")
    if kind != "BertPreTokenizer":
        raise checkpoint.unsupported(
            f"tokenizer.json: pre_tokenizer.type {kind!r} is not supported, only 'BertPreTokenizer'"
        )
    model = _read_model(checkpoint, normalizer)
    vocab, size = checkpoint.read_vocab_object(checkpoint.section("model").get("vocab"), "tokenizer.json: model.vocab")
    if model.unk_token not in vocab:
        raise checkpoint.error(f"the vocabulary lacks the unk_token {model.unk_token!r}")
    added = AddedVocabulary(vocab, size)
    vocab = checkpoint.without_line_breaks(vocab)
    added.add_listed(checkpoint.tokenizer.get("added_tokens"), checkpoint)
    if checkpoint.config:
        names = named_tokens(checkpoint.config, checkpoint.special_tokens_map, {})
        add_from_config(added, checkpoint, names)
    single, pair = read_templates(checkpoint)
    note_other_offsets(checkpoint)
    note_other_wordpiece(checkpoint, model.continuing_subword_prefix)
    return TokenizerSpec(
        "wordpiece", model, vocab, added.tokens(), single, pair, checkpoint.max_length, checkpoint.notes
    )


def _read_model(checkpoint: Checkpoint, normalizer: dict[str, Any]) -> WordPieceSettings:
    """The settings of the `model` section, with those of a BertNormalizer."""
    section = checkpoint.section("model")
    names = ("unk_token", "continuing_subword_prefix", "max_input_chars_per_word")
    model = {name: section[name] for name in names if name in section}
    return build(WordPieceSettings, model | normalizer, f"{checkpoint.folder}: tokenizer.json")


def _note_differences(
    checkpoint: Checkpoint,
    model: WordPieceSettings,
    templates: tuple[TemplateSpec, TemplateSpec],
    vocab: list[str],
) -> None:
    """Say where `tokenizer.json` describes another pipeline than the one that AutoTokenizer builds."""
    if not checkpoint.tokenizer:
        return
    normalizer = dict(checkpoint.section("normalizer"))
    try:
        if normalizer.pop("type", None) != "BertNormalizer":
            raise checkpoint.error("normalizer")
        other = asdict(_read_model(checkpoint, normalizer))
    except ModelFolderError:
        checkpoint.notes.append(
            "tokenizer.json has another normalizer than BertTokenizer's, which is what AutoTokenizer uses"
        )
        other = asdict(model)
    for name, value in asdict(model).items():
        if other[name] != value:
            checkpoint.notes.append(
                f"{name} is {value!r} as AutoTokenizer has it (from tokenizer_config.json or its default), "
                f"although tokenizer.json says {other[name]!r}"
            )
    try:
        same = read_templates(checkpoint) == templates
    except ModelFolderError:
        same = False
    if not same:
        checkpoint.notes.append(
            f"special tokens are placed as {checkpoint.class_name or 'BertTokenizer'} does, although "
            "tokenizer.json's post_processor differs"
        )
    path = checkpoint.folder / VOCAB_NAME
    if path.exists() and [t.rstrip() for t in checkpoint.read_vocab_txt(path)[0]] != [t.rstrip() for t in vocab]:
        checkpoint.notes.append(f"the vocabulary is tokenizer.json's, {VOCAB_NAME} differs")
