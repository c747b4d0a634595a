"""Reads byte-level BPE tokenizers from a checkpoint: `tokenizer.json`, or `vocab.json` with `merges.txt`.

`transformers.RobertaTokenizer` (version 5) always cuts words as GPT-2 does and normalises nothing; of `tokenizer.json`
it uses the vocabulary, the merges and the added tokens. Only classes without a pipeline of their own, ModernBERT's
among them, run `tokenizer.json` as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.checked_file import read_bytes
from bgert.errors import ModelFolderError
from bgert.tokenizer.added_tokens import AddedVocabulary, add_from_config, named_tokens
from bgert.tokenizer.bpe_file import pack
from bgert.tokenizer.decoders import note_other_byte_level
from bgert.tokenizer.spec import BpeSettings, TemplateSpec, TokenizerSpec, read_json
from bgert.tokenizer.split_patterns import GPT2, PATTERNS
from bgert.tokenizer.templates import read_templates, roberta_templates

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bgert.tokenizer.checkpoint_files import Checkpoint

__all__ = ["MERGES_NAME", "VOCAB_JSON_NAME", "read_bpe_json", "read_roberta"]

VOCAB_JSON_NAME, MERGES_NAME = "vocab.json", "merges.txt"
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}


def read_roberta(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `transformers.RobertaTokenizer` makes of the folder."""
    if checkpoint.tokenizer:
        section = checkpoint.section("model")
        _check_model(checkpoint, section, ours=True)
        where = "tokenizer.json: model."
        vocab, size = checkpoint.read_vocab_object(section.get("vocab"), f"{where}vocab")
        merges = _pairs(checkpoint, section.get("merges"), f"{where}merges")
    else:
        where = ""
        raw = read_json(checkpoint.folder / VOCAB_JSON_NAME)
        vocab, size = checkpoint.read_vocab_object(raw, VOCAB_JSON_NAME)
        merges = _pairs(checkpoint, _merges_txt(checkpoint), MERGES_NAME)
    names = named_tokens(checkpoint.config, checkpoint.special_tokens_map, ROBERTA_TOKENS)
    added = AddedVocabulary(vocab, size)
    add_from_config(added, checkpoint, names)
    ends = []
    for name in ("cls_token", "sep_token"):
        token = names[name]
        if token is None:
            raise checkpoint.error(f"tokenizer_config.json: {name} is null, which RobertaTokenizer does not take")
        ends.append(added.id_of(token.content))
    templates = roberta_templates(*ends)
    prefix = bool(checkpoint.flag("add_prefix_space", False))
    settings = BpeSettings(
        GPT2,
        add_prefix_space=prefix,
        trim_offsets=bool(checkpoint.flag("trim_offsets", True)),
        keep_first_space=prefix,
        data=_packed(checkpoint, vocab, merges, f"{where}merges" if where else MERGES_NAME),
    )
    if checkpoint.tokenizer:
        _note_differences(checkpoint, settings, templates)
    return TokenizerSpec("bpe", settings, vocab, added.tokens(), *templates, checkpoint.max_length, checkpoint.notes)


def read_bpe_json(checkpoint: Checkpoint) -> TokenizerSpec:
    """What `tokenizers.Tokenizer.from_file` makes of a `tokenizer.json` with a byte-level BPE model."""
    section = checkpoint.section("model")
    _check_model(checkpoint, section)
    vocab, size = checkpoint.read_vocab_object(section.get("vocab"), "tokenizer.json: model.vocab")
    merges = _pairs(checkpoint, section.get("merges"), "tokenizer.json: model.merges")
    nfc = _reads_nfc(checkpoint)
    pattern, prefix = _pattern(checkpoint)
    added = AddedVocabulary(vocab, size)
    added.add_listed(checkpoint.tokenizer.get("added_tokens"), checkpoint)
    if checkpoint.config:
        add_from_config(added, checkpoint, named_tokens(checkpoint.config, checkpoint.special_tokens_map, {}))
    single, pair, trim, keep = _post_processor(checkpoint)
    settings = BpeSettings(
        pattern,
        nfc=nfc,
        ignore_merges=_flag(checkpoint, section, "ignore_merges", "model", default=False),
        add_prefix_space=prefix,
        trim_offsets=trim,
        keep_first_space=keep,
        data=_packed(checkpoint, vocab, merges, "tokenizer.json: model.merges"),
    )
    note_other_byte_level(checkpoint)
    return TokenizerSpec("bpe", settings, vocab, added.tokens(), single, pair, checkpoint.max_length, checkpoint.notes)


def _check_model(checkpoint: Checkpoint, section: dict[str, Any], *, ours: bool = False) -> None:
    """Refuse what would change ids; `ours`: RobertaTokenizer takes none of it from the file."""
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if section.get(name) and not ours:
            refused = checkpoint.error if name == "dropout" else checkpoint.unsupported  # nobody's ids by chance
            raise refused(f"tokenizer.json: model.{name} is {section[name]!r:.40}, which bgert does not do")


def _flag(checkpoint: Checkpoint, section: dict[str, Any], name: str, where: str, *, default: bool) -> bool:
    value = section.get(name, default)
    if not isinstance(value, bool):
        raise checkpoint.error(f"tokenizer.json: {where}.{name} is {value!r:.40}, not true or false")
    return value


def _steps(checkpoint: Checkpoint, name: str, listed: str) -> list[dict[str, Any]]:
    """The parts of a section that may be a `Sequence`."""
    section = checkpoint.section(name)
    steps = section.get(listed) if section.get("type") == "Sequence" else [section] if section else []
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise checkpoint.error(f"tokenizer.json: {name} is not a complete Sequence")
    return steps


def _reads_nfc(checkpoint: Checkpoint) -> bool:
    kinds = [step.get("type") for step in _steps(checkpoint, "normalizer", "normalizers")]
    if any(kind != "NFC" for kind in kinds):
        raise checkpoint.unsupported(
            f"tokenizer.json: the normalizer is {', '.join(map(str, kinds)):.80}: for BPE bgert has NFC or none"
        )
    return bool(kinds)


def _pattern(checkpoint: Checkpoint) -> tuple[str, bool]:
    """The name of the expression that cuts words, and whether text gets a space in front."""
    steps = _steps(checkpoint, "pre_tokenizer", "pretokenizers")
    kinds = [step.get("type") for step in steps]
    if not kinds or kinds[-1] != "ByteLevel" or kinds[:-1] not in ([], ["Split"]):
        listed = ", ".join(map(str, kinds)) or "null"
        raise checkpoint.unsupported(
            f"tokenizer.json: the pre_tokenizer is {listed:.80}: for BPE bgert has ByteLevel, alone or behind one Split"
        )
    last = steps[-1]
    prefix = _flag(checkpoint, last, "add_prefix_space", "pre_tokenizer", default=True)
    own = _flag(checkpoint, last, "use_regex", "pre_tokenizer", default=True)
    if len(steps) == 1:
        if not own:
            raise checkpoint.unsupported("tokenizer.json: the pre_tokenizer cuts no words, which bgert does not do")
        return GPT2, prefix
    split = steps[0]
    expression = split.get("pattern")
    regex = expression.get("Regex") if isinstance(expression, dict) else None
    if not isinstance(regex, str) or regex not in PATTERNS:
        raise checkpoint.unsupported(
            f"tokenizer.json: pre_tokenizer: Split has the pattern {regex or expression!r:.200}, which bgert does not "
            f"know: it has those of {', '.join(PATTERNS.values())}"
        )
    # These expressions match all of a text, so that nothing lies between the words.
    if (split.get("behavior"), bool(split.get("invert"))) not in (
        ("Isolated", False),
        ("Isolated", True),
        ("Removed", True),
    ):
        raise checkpoint.unsupported(f"tokenizer.json: pre_tokenizer: Split has behavior {split.get('behavior')!r:.40}")
    if prefix or own:
        raise checkpoint.unsupported(
            "tokenizer.json: pre_tokenizer: ByteLevel behind a Split has add_prefix_space or use_regex, which bgert "
            "does not do"
        )
    return PATTERNS[regex], False


def _post_processor(checkpoint: Checkpoint) -> tuple[TemplateSpec, TemplateSpec, bool, bool]:
    """The templates, whether offsets leave out spaces, and whether a first one is kept."""
    steps = _steps(checkpoint, "post_processor", "processors")
    trims = [
        step
        for step in steps
        if step.get("type") in ("ByteLevel", "RobertaProcessing")
        and _flag(checkpoint, step, "trim_offsets", "post_processor", default=True)
    ]
    layouts = [step for step in steps if step.get("type") != "ByteLevel"]
    if len(layouts) > 1 or len(trims) > 1:
        kinds = ", ".join(str(step.get("type")) for step in steps)
        raise checkpoint.unsupported(
            f"tokenizer.json: post_processor is a Sequence of {kinds:.80}, which bgert does not do"
        )
    single, pair = read_templates(checkpoint, layouts[0] if layouts else {})
    keep = bool(trims) and _flag(checkpoint, trims[0], "add_prefix_space", "post_processor", default=True)
    return single, pair, bool(trims), keep


def _merges_txt(checkpoint: Checkpoint) -> list[str]:
    path = checkpoint.folder / MERGES_NAME
    try:
        text = read_bytes(path, ModelFolderError).decode("utf-8")
    except FileNotFoundError:
        raise checkpoint.error(f"there is {VOCAB_JSON_NAME} but no {MERGES_NAME}, and BPE needs both") from None
    except UnicodeDecodeError as error:
        raise ModelFolderError(f"{path} is not UTF-8 (byte {error.start})") from None
    lines = text.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line for line in lines if not line.startswith("#version")]


def _pairs(checkpoint: Checkpoint, raw: Any, where: str) -> list[tuple[str, str]]:
    """Merges as pairs of tokens, written as `a b` or as lists."""
    if not isinstance(raw, list):
        raise checkpoint.error(f"{where} is not a list of merges")
    found = []
    for index, item in enumerate(raw):
        parts = item.split(" ") if isinstance(item, str) else item
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) and part for part in parts):
            raise checkpoint.error(f"{where}: merge {index} is {item!r:.80}, not two tokens")
        found.append((parts[0], parts[1]))
    return found


def _packed(checkpoint: Checkpoint, vocab: list[str], merges: Iterable[tuple[str, str]], where: str) -> bytes:
    ids = {token: index for index, token in enumerate(vocab) if token}
    ranked: dict[tuple[int, int], int] = {}
    for index, (left, right) in enumerate(merges):
        try:
            pair = ids[left], ids[right]
            merged = ids[left + right]
        except KeyError as error:
            raise checkpoint.error(f"{where}: merge {index} needs {error.args[0]!r:.80}, which is no token") from None
        ranked.pop(pair, None)  # of a merge that comes again the last counts
        ranked[pair] = merged
    try:
        return pack(vocab, [(*pair, merged) for pair, merged in ranked.items()])
    except ValueError as error:
        raise checkpoint.error(f"the vocabulary cannot be used: {error}") from None


def _note_differences(
    checkpoint: Checkpoint, settings: BpeSettings, templates: tuple[TemplateSpec, TemplateSpec]
) -> None:
    """Say where `tokenizer.json` describes another pipeline than the one that AutoTokenizer builds."""
    usual = {"pattern": settings.pattern, "add_prefix_space": settings.add_prefix_space, "nfc": False}
    section = checkpoint.section("model")
    other = {"ignore_merges": bool(section.get("ignore_merges"))}
    try:
        _check_model(checkpoint, section)
        other["nfc"] = _reads_nfc(checkpoint)
        other["pattern"], other["add_prefix_space"] = _pattern(checkpoint)  # type: ignore[assignment]
        single, pair, trim, keep = _post_processor(checkpoint)
    except ModelFolderError as error:
        checkpoint.notes.append(f"words are cut as RobertaTokenizer does, although tokenizer.json differs ({error})")
        return
    for name, value in {**usual, "ignore_merges": False}.items():
        if other[name] != value:
            checkpoint.notes.append(
                f"{name} is {value!r} as RobertaTokenizer has it, although tokenizer.json says {other[name]!r}"
            )
    if (single, pair) != templates or (trim, keep if trim else False) != (
        settings.trim_offsets,
        settings.keep_first_space if settings.trim_offsets else False,
    ):
        checkpoint.notes.append(
            "special tokens and offsets are those of RobertaTokenizer, although tokenizer.json's post_processor differs"
        )
    note_other_byte_level(checkpoint)
