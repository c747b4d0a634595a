"""Reads XLM-RoBERTa's tokenizer from a checkpoint, from `tokenizer.json` or from the SentencePiece model.

`transformers.XLMRobertaTokenizer` (version 5) always splits at whitespace and puts U+2581 before each word; of
`tokenizer.json` it uses the vocabulary, the charsmap and the added tokens, and the id of the unknown token is 3.
It reads scores as Python does. `tokenizers` alone reads them less exactly, which decides some ties, so a checkpoint of
a class that leaves the file to `tokenizers` is read with `rust_float`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from bgert.checked_file import decode_json, read_bytes
from bgert.errors import ModelFolderError
from bgert.tokenizer.added_tokens import EXTRA, AddedVocabulary, add_from_config, named_tokens
from bgert.tokenizer.decoders import note_other_metaspace, note_other_offsets
from bgert.tokenizer.sentencepiece_file import UNIGRAM, USER_DEFINED, read_model
from bgert.tokenizer.spec import TokenizerSpec, UnigramSettings
from bgert.tokenizer.templates import read_templates, roberta_templates
from bgert.tokenizer.unigram_file import pack

if TYPE_CHECKING:
    from bgert.tokenizer.checkpoint_files import Checkpoint

__all__ = ["MODEL_NAME", "read_camembert", "read_unigram_json", "read_xlm_roberta", "rust_float"]

MODEL_NAME = "sentencepiece.bpe.model"
XLMR_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
XLMR_UNK_ID = 3
CAMEMBERT_UNUSED = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"]
WORD_MARK = "\u2581"
PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": WORD_MARK, "prepend_scheme": "always", "split": True},
    ],
}


def read_xlm_roberta(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `transformers.XLMRobertaTokenizer` makes of the folder."""
    if checkpoint.flag("add_prefix_space", True) is not True:
        raise checkpoint.unsupported("tokenizer_config.json: add_prefix_space is false, which bgert does not do")
    names = named_tokens(checkpoint.config, checkpoint.special_tokens_map, XLMR_TOKENS)
    required = {}
    for name in ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token"):
        token = names[name]
        if token is None:
            raise checkpoint.error(f"tokenizer_config.json: {name} is null, which XLMRobertaTokenizer does not take")
        required[name] = token.content
    if checkpoint.tokenizer:
        vocab, scores = _read_vocab(checkpoint)
        charsmap = _first_charsmap(checkpoint)
        _note_differences(checkpoint)
    else:
        vocab, scores, charsmap = _read_sentencepiece(checkpoint, required)
    added = AddedVocabulary(vocab, len(vocab))
    add_from_config(added, checkpoint, names)
    templates = roberta_templates(added.id_of(required["bos_token"]), added.id_of(required["eos_token"]))
    if checkpoint.tokenizer:
        _note_template(checkpoint, templates)
    return _spec(checkpoint, vocab, scores, XLMR_UNK_ID, charsmap, added, templates)


def read_camembert(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `transformers.CamembertTokenizer` makes of a folder with tokenizer.json.

    XLM-RoBERTa's pipeline with another vocabulary: the unknown token is found by its name, and three tokens of the
    first vocabulary, whose names end in NOTUSED, are special.
    """
    if checkpoint.flag("add_prefix_space", True) is not True:
        raise checkpoint.unsupported("tokenizer_config.json: add_prefix_space is false, which bgert does not do")
    names = named_tokens(checkpoint.config, checkpoint.special_tokens_map, XLMR_TOKENS, mask_takes_blanks=True)
    required = {}
    for name in ("bos_token", "eos_token", "unk_token"):
        token = names[name]
        if token is None:
            raise checkpoint.error(f"tokenizer_config.json: {name} is null, which CamembertTokenizer does not take")
        required[name] = token.content
    vocab, scores = _read_vocab(checkpoint)
    unk_id = vocab.index(required["unk_token"]) if required["unk_token"] in vocab else 0
    added = AddedVocabulary(vocab, len(vocab))
    if not any(name in checkpoint.config for name in EXTRA):
        checkpoint.config["additional_special_tokens"] = CAMEMBERT_UNUSED
    add_from_config(added, checkpoint, names)
    templates = roberta_templates(added.id_of(required["bos_token"]), added.id_of(required["eos_token"]))
    _note_template(checkpoint, templates)
    return _spec(checkpoint, vocab, scores, unk_id, _first_charsmap(checkpoint), added, templates)


def read_unigram_json(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `tokenizers.Tokenizer.from_file` makes of a `tokenizer.json` with a Unigram model."""
    model = checkpoint.section("model")
    if model.get("byte_fallback"):
        raise checkpoint.unsupported("tokenizer.json: model.byte_fallback is true, which bgert does not do")
    unk_id = model.get("unk_id")
    if type(unk_id) is not int:
        raise checkpoint.unsupported(f"tokenizer.json: model.unk_id is {unk_id!r}, not an id")
    if not _is_supported_split(checkpoint.section("pre_tokenizer")):
        raise checkpoint.unsupported(
            "tokenizer.json: pre_tokenizer is not WhitespaceSplit and Metaspace (prepend_scheme 'always', split true), "
            "the only one that bgert has for Unigram"
        )
    normalizer = checkpoint.section("normalizer")
    steps = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
    if normalizer and (not isinstance(steps, list) or [_type_of(step) for step in steps] != ["Precompiled"]):
        raise checkpoint.unsupported("tokenizer.json: normalizer is not a Precompiled charsmap alone")
    vocab, scores = _read_vocab(checkpoint, rounded=True)
    added = AddedVocabulary(vocab, len(vocab))
    added.add_listed(checkpoint.tokenizer.get("added_tokens"), checkpoint)
    if checkpoint.config:
        add_from_config(added, checkpoint, named_tokens(checkpoint.config, checkpoint.special_tokens_map, {}))
    templates = read_templates(checkpoint)
    note_other_offsets(checkpoint)
    note_other_metaspace(checkpoint)
    return _spec(checkpoint, vocab, scores, unk_id, _first_charsmap(checkpoint), added, templates)


def _spec(
    checkpoint: Checkpoint,
    vocab: list[str],
    scores: list[float],
    unk_id: int,
    charsmap: bytes,
    added: AddedVocabulary,
    templates: tuple[Any, Any],
) -> TokenizerSpec:
    try:
        settings = UnigramSettings(pack(vocab, scores, unk_id, charsmap))
    except ValueError as error:
        raise checkpoint.error(f"the vocabulary cannot be used: {error}") from None
    single, pair = templates
    return TokenizerSpec(
        "unigram", settings, vocab, added.tokens(), single, pair, checkpoint.max_length, checkpoint.notes
    )


def rust_float(text: str) -> float:
    """A JSON number as serde_json without `float_roundtrip` reads it: at times the neighbour of the nearest.

    Its digits are gathered in 64 bits, those that do not fit are ignored, then one power of ten is applied.
    """
    mantissa, _, power = text.lower().lstrip("-").partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits, exponent = int(whole), int(power or 0)
    for digit in fraction:
        longer = digits * 10 + int(digit)
        if longer >= 1 << 64:
            break
        digits, exponent = longer, exponent - 1
    value = float(digits)
    while value and exponent < -308:
        value, exponent = value / 1e308, exponent + 308
    value = value * float(f"1e{exponent}") if exponent >= 0 else value / float(f"1e{-exponent}")
    return -value if text.startswith("-") else value


def _read_vocab(checkpoint: Checkpoint, *, rounded: bool = False) -> tuple[list[str], list[float]]:
    """Pieces and scores of the `model` section, the scores as Python reads them or `rounded` as `tokenizers` does."""
    raw = checkpoint.section("model").get("vocab")
    if rounded:
        text = read_bytes(checkpoint.folder / "tokenizer.json", ModelFolderError)
        try:
            raw = decode_json(text, parse_float=rust_float)["model"].get("vocab")
        except (ValueError, OverflowError):  # the file was read before, so only a number can be at fault
            raise checkpoint.error("tokenizer.json: model.vocab has a score that is out of range") from None
    if not isinstance(raw, list) or not raw:
        raise checkpoint.error("tokenizer.json: model.vocab is not a list of pieces with scores")
    for index, item in enumerate(raw):
        if (
            not isinstance(item, list)
            or len(item) != 2
            or type(item[0]) is not str
            or type(item[1]) not in (int, float)
        ):
            raise checkpoint.error(f"tokenizer.json: model.vocab[{index}] is not a piece with a score")
    return [item[0] for item in raw], [item[1] for item in raw]


def _first_charsmap(checkpoint: Checkpoint) -> bytes:
    """The charsmap of the first Precompiled normaliser, empty if there is none; others do not count here."""
    normalizer = checkpoint.section("normalizer")
    steps = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
    for step in steps if isinstance(steps, list) else []:
        if _type_of(step) == "Precompiled" and "precompiled_charsmap" in step:
            try:
                return base64.b64decode(step["precompiled_charsmap"], validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise checkpoint.error("tokenizer.json: normalizer.precompiled_charsmap is not base64") from None
    return b""


def _type_of(section: Any) -> Any:
    return section.get("type") if isinstance(section, dict) else None


def _is_supported_split(section: dict[str, Any]) -> bool:
    """Whether a pre-tokeniser is the one that XLMRobertaTokenizer has; old files write it with other fields."""
    steps = section.get("pretokenizers")
    if section.get("type") != "Sequence" or not isinstance(steps, list) or len(steps) != 2:
        return False
    if _type_of(steps[0]) != "WhitespaceSplit" or _type_of(steps[1]) != "Metaspace":
        return False
    mark = steps[1]
    scheme = mark.get("prepend_scheme", "always" if mark.get("add_prefix_space", True) else "never")
    return bool(mark.get("replacement") == WORD_MARK and scheme == "always" and mark.get("split", True) is True)


def _read_sentencepiece(checkpoint: Checkpoint, names: dict[str, str]) -> tuple[list[str], list[float], bytes]:
    """Pieces, scores and charsmap of the SentencePiece model, in the order that fairseq gave XLM-R."""
    path = checkpoint.folder / MODEL_NAME
    try:
        model = read_model(read_bytes(path, ModelFolderError))
    except FileNotFoundError:
        raise ModelFolderError(f"cannot read {path}: No such file or directory") from None
    except ModelFolderError:
        raise
    except ValueError as error:
        raise ModelFolderError(f"{path} is not a SentencePiece model: {error}") from None
    if model.model_type != UNIGRAM:
        raise ModelFolderError(f"{path}: trainer_spec.model_type is {model.model_type}, only 1 (unigram) is supported")
    if USER_DEFINED in model.types:
        piece = model.pieces[model.types.index(USER_DEFINED)]
        raise ModelFolderError(f"{path}: piece {piece!r} is user-defined, which bgert reads from tokenizer.json alone")
    first = [names[name] for name in ("bos_token", "pad_token", "eos_token", "unk_token")]
    vocab = [*first, *model.pieces[3:], names["mask_token"]]
    return vocab, [0.0] * len(first) + model.scores[3:] + [0.0], model.charsmap


def _note_differences(checkpoint: Checkpoint) -> None:
    """Say where `tokenizer.json` describes another pipeline than the one that AutoTokenizer builds."""
    normalizer = checkpoint.section("normalizer")
    notes = checkpoint.notes
    if normalizer.get("type") not in ("Precompiled", None):
        notes.append("of tokenizer.json's normalizer only the charsmap counts, as in AutoTokenizer")
    if not _is_supported_split(checkpoint.section("pre_tokenizer")):
        notes.append(
            "words are split at whitespace as AutoTokenizer does, although tokenizer.json's pre_tokenizer differs"
        )
    model = checkpoint.section("model")
    if model.get("byte_fallback"):
        notes.append("byte_fallback is off as AutoTokenizer has it, although tokenizer.json says it is on")
    if model.get("unk_id", XLMR_UNK_ID) != XLMR_UNK_ID:
        notes.append(
            f"the unknown token is {XLMR_UNK_ID} as AutoTokenizer has it, "
            f"although tokenizer.json says unk_id {model.get('unk_id')}"
        )


def _note_template(checkpoint: Checkpoint, templates: tuple[Any, Any]) -> None:
    try:
        same = read_templates(checkpoint) == templates
    except ModelFolderError:
        same = False
    if not same:
        checkpoint.notes.append(
            f"special tokens are placed as {checkpoint.class_name} does, although "
            "tokenizer.json's post_processor differs"
        )
