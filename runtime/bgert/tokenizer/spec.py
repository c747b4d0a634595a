"""What a tokenizer is made of, read from a Hugging Face checkpoint or from a model folder.

Where the files of a checkpoint disagree, the spec follows `transformers.AutoTokenizer` (version 5) and says so in
`TokenizerSpec.notes`.
"""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from bgert import checked_file
from bgert.errors import ModelFolderError

__all__ = [
    "AddedTokenSpec",
    "BpeSettings",
    "HuggingFaceSettings",
    "TemplateSpec",
    "TokenizerSpec",
    "UnigramSettings",
    "WordPieceSettings",
]

VOCAB_NAME = "vocab.txt"
UNIGRAM_NAME = "unigram.bin"
BPE_NAME = "bpe.bin"
HUGGINGFACE_NAME = "huggingface.json"  # a tokenizer.json; the target portable writes one of that name
LARGEST_LIMIT = 10**9  # transformers writes 1e30 for "no limit"
MOST_TOKENS = 2**21  # kMostTokens of runtime/src/tokenizer/text_model.h

T = TypeVar("T")


@dataclass(frozen=True)
class AddedTokenSpec:
    """A token that is matched in the text before the model runs, see `tokenizers.AddedToken`."""

    content: str
    id: int
    special: bool
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


@dataclass(frozen=True)
class TemplateSpec:
    """Ids before, between and after the texts, and the token type of each part."""

    prefix: list[int]
    suffix: list[int]
    middle: list[int] = field(default_factory=list)
    """Between the texts of a pair."""
    prefix_type: int = 0
    first_type: int = 0
    middle_type: int = 0
    second_type: int = 0
    suffix_type: int = 0


@dataclass(frozen=True)
class WordPieceSettings:
    """BERT's normaliser and WordPiece."""

    unk_token: str = "[UNK]"  # noqa: S105 - not a password
    continuing_subword_prefix: str = "##"
    max_input_chars_per_word: int = 100
    clean_text: bool = True
    handle_chinese_chars: bool = True
    strip_accents: bool | None = None
    """None: as `lowercase`."""
    lowercase: bool = True


@dataclass(frozen=True)
class UnigramSettings:
    """A SentencePiece Unigram model with its charsmap."""

    data: bytes = field(repr=False)
    """What `unigram.bin` holds, see `bgert.tokenizer.unigram_file`."""


@dataclass(frozen=True)
class BpeSettings:
    """Byte-level BPE, as GPT-2 and what came after it have it."""

    pattern: str
    """What cuts a text into words, a name of `bgert.tokenizer.split_patterns`."""
    nfc: bool = False
    ignore_merges: bool = False
    """A word that is a token needs no merges."""
    add_prefix_space: bool = False
    trim_offsets: bool = False
    """`tokens` gives offsets without the spaces at the ends of a token."""
    keep_first_space: bool = False
    """With `trim_offsets`: but a single space at the beginning of the text stays."""
    data: bytes = field(default=b"", repr=False)
    """What `bpe.bin` holds, see `bgert.tokenizer.bpe_file`."""


@dataclass(frozen=True)
class HuggingFaceSettings:
    """A `tokenizer.json` that Hugging Face's `tokenizers` runs, a package built in Rust."""

    written_by: str
    """The package and the version that wrote the file."""
    data: bytes = field(default=b"", repr=False)
    """The file."""

    @cached_property
    def library(self) -> Any:
        """The package's own tokenizer, see `bgert.tokenizer.huggingface.open_library`."""
        # Not at the top: nothing else needs it.
        from bgert.tokenizer.huggingface import open_library

        return open_library(self.data)

    def __getstate__(self) -> dict[str, Any]:
        return {"written_by": self.written_by, "data": self.data}


@dataclass(frozen=True)
class TokenizerSpec:
    """Everything needed to build the native tokenizer."""

    kind: str
    """`wordpiece`, `unigram` or `bpe`; or `huggingface`, which bgert has no tokenizer of its own for."""
    model: WordPieceSettings | UnigramSettings | BpeSettings | HuggingFaceSettings
    vocab: list[str]
    """Tokens by id; the empty string stands for an id that no text yields."""
    added_tokens: list[AddedTokenSpec]
    single: TemplateSpec
    pair: TemplateSpec
    max_length: int | None = None
    """The checkpoint's own limit in tokens, special tokens counted; None if it has none."""
    notes: list[str] = field(default_factory=list)
    """Decisions that were taken where the checkpoint's files left a choice."""

    def write(self, folder: str | Path) -> dict[str, Any]:
        """Write the vocabulary into a model folder and return the manifest's `tokenizer` section."""
        if isinstance(self.model, UnigramSettings):
            name, content, model = UNIGRAM_NAME, self.model.data, {}
        elif isinstance(self.model, (BpeSettings, HuggingFaceSettings)):
            name = BPE_NAME if isinstance(self.model, BpeSettings) else HUGGINGFACE_NAME
            content, model = self.model.data, asdict(self.model)
            del model["data"]
        else:
            name, content, model = VOCAB_NAME, vocab_txt(self.vocab), asdict(self.model)
        (Path(folder) / name).write_bytes(content)
        settings = {
            "model": model,
            "added_tokens": [asdict(token) for token in self.added_tokens],
            "single": asdict(self.single),
            "pair": asdict(self.pair),
        }
        return {"kind": self.kind, "settings": settings, "files": [name]}

    @classmethod
    def read(cls, folder: str | Path, section: dict[str, Any], max_length: int | None = None) -> TokenizerSpec:
        """Build the spec from a manifest's `tokenizer` section; the inverse of `write`.

        Raises:
            ModelFolderError: the section or the vocabulary is not what `write` makes.
            EngineNotInstalledError: it takes HF `tokenizers`, which is not here.
        """
        path = Path(folder)
        kind = section.get("kind")
        if kind not in ("wordpiece", "unigram", "bpe", "huggingface"):
            raise ModelFolderError(f"{path}: tokenizer kind {kind!r} is unknown to this bgert: upgrade bgert")
        settings, files = section.get("settings"), section.get("files")
        if not isinstance(settings, dict) or not isinstance(files, list) or len(files) != 1:
            raise ModelFolderError(f"{path}: the tokenizer section needs `settings` and one entry in `files`")
        tokens = settings.get("added_tokens")
        if not isinstance(tokens, list):
            raise ModelFolderError(f"{path}: tokenizer.settings.added_tokens is not a list")
        where = f"{path}: tokenizer.settings"
        model: WordPieceSettings | UnigramSettings | BpeSettings | HuggingFaceSettings
        if kind == "unigram":
            model, vocab = read_unigram(path / str(files[0]))
        elif kind == "bpe":
            model = build(BpeSettings, settings.get("model"), f"{where}.model")
            model, vocab = read_bpe(path / str(files[0]), model)
        elif kind == "huggingface":
            model = build(HuggingFaceSettings, settings.get("model"), f"{where}.model")
            model, vocab = read_huggingface(path / str(files[0]), model)
        else:
            model = build(WordPieceSettings, settings.get("model"), f"{where}.model")
            vocab = read_vocab_txt(path / str(files[0]))
        return cls(
            kind=kind,
            model=model,
            vocab=vocab,
            added_tokens=[build(AddedTokenSpec, token, f"{where}.added_tokens[{i}]") for i, token in enumerate(tokens)],
            single=build(TemplateSpec, settings.get("single"), f"{where}.single"),
            pair=build(TemplateSpec, settings.get("pair"), f"{where}.pair"),
            max_length=max_length,
        )


def read_unigram(path: Path) -> tuple[UnigramSettings, list[str]]:
    """The settings that a `unigram.bin` holds, and its pieces by id.

    Raises:
        ModelFolderError: the file is missing or is none.
    """
    # Not at the top: a WordPiece tokenizer needs none of it.
    from bgert.tokenizer.unigram_file import pieces

    data = _read(path)
    try:
        return UnigramSettings(data), pieces(data)
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}") from None


def read_bpe(path: Path, model: BpeSettings) -> tuple[BpeSettings, list[str]]:
    """The settings with what a `bpe.bin` holds, and its tokens by id.

    Raises:
        ModelFolderError: the file is missing or is none.
    """
    # Not at the top: a WordPiece tokenizer needs none of it.
    from bgert.tokenizer.bpe_file import tokens

    data = _read(path)
    try:
        return replace(model, data=data), tokens(data)
    except ValueError as error:
        raise ModelFolderError(f"{path}: {error}") from None


def read_huggingface(path: Path, model: HuggingFaceSettings) -> tuple[HuggingFaceSettings, list[str]]:
    """The settings with a `tokenizer.json`, and its tokens by id, as the package that runs it has them.

    Raises:
        ModelFolderError: the file is missing, or the package does not read it.
        EngineNotInstalledError: the package is not installed.
    """
    # Not at the top: nothing else needs it.
    from bgert.tokenizer.huggingface import vocabulary

    model = replace(model, data=_read(path))
    try:
        return model, vocabulary(model.library, MOST_TOKENS)
    except ValueError as error:
        written = f" (written by {_REPR.repr(model.written_by)})"
        raise ModelFolderError(f"{path}{written}: {error}") from None


def vocab_txt(vocab: list[str]) -> bytes:
    """The content of a `vocab.txt`.

    Tokens with a line break are left out: every line break separates words, so no text yields them.
    """
    return "".join(("" if "\n" in token or "\r" in token else token) + "\n" for token in vocab).encode()


def read_vocab_txt(path: Path) -> list[str]:
    """Tokens by id, one a line; empty lines are ids without a token.

    Raises:
        ModelFolderError: the file is missing, not UTF-8 or has a token twice.
    """
    lines = vocab_lines(path)
    if len(set(lines)) != len(lines):
        seen: dict[str, int] = {}
        for index, token in enumerate(lines):
            if token and seen.setdefault(token, index) != index:
                raise ModelFolderError(f"{path}: token {token!r} is on lines {seen[token] + 1} and {index + 1}")
    return lines


def vocab_lines(path: Path) -> list[str]:
    """The lines of a `vocab.txt`, which end with a line feed and perhaps a carriage return before it.

    Raises:
        ModelFolderError: the file is missing, empty or not UTF-8.
    """
    content = _read(path)
    if content.count(b"\n") > MOST_TOKENS:  # before a string is made of each
        raise ModelFolderError(f"{path} has more than {MOST_TOKENS} lines: no vocabulary is that large")
    try:
        lines = content.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelFolderError(f"{path} is not UTF-8 (byte {error.start})") from None
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ModelFolderError(f"{path} is empty")
    return lines


def _read(path: Path) -> bytes:
    try:
        return checked_file.read_bytes(path, ModelFolderError)
    except FileNotFoundError:
        raise ModelFolderError(f"cannot read {path}: No such file or directory") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an absent file counts as an empty one.

    Raises:
        ModelFolderError: the file cannot be read or holds something else.
    """
    try:
        raw = checked_file.read_json(path, ModelFolderError)
    except FileNotFoundError:
        return {}
    if not isinstance(raw, dict):
        raise ModelFolderError(f"{path} does not hold a JSON object")
    return raw


_REPR = reprlib.Repr()  # values of any size, cut short
_FIELD_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bytes": (bytes,),
    "int": (int,),
    "bool": (bool,),
    "bool | None": (bool, type(None)),
    "list[int]": (list,),
}


def check_spec(spec: TokenizerSpec) -> None:
    """Refuse values of other types than the native tokenizer takes, whatever file they came from.

    Raises:
        ModelFolderError: there is one.
    """
    parts: dict[str, Any] = {"single": spec.single, "pair": spec.pair, "model": spec.model}
    parts |= {f"added_tokens[{i}]": token for i, token in enumerate(spec.added_tokens)}
    for name, part in parts.items():
        if not isinstance(part, UnigramSettings):
            build(type(part), asdict(part), f"the tokenizer's {name}")
    try:
        "".join(spec.vocab).encode()
    except UnicodeEncodeError:
        raise ModelFolderError("the tokenizer's vocabulary has a token with a lone surrogate") from None


def build(cls: type[T], raw: Any, where: str) -> T:
    """A dataclass from decoded JSON.

    Raises:
        ModelFolderError: a field is unknown, missing or of another type.
    """
    if not isinstance(raw, dict):
        raise ModelFolderError(f"{where} is not an object")
    known = {f.name: str(f.type) for f in fields(cls)}  # type: ignore[arg-type]
    for name, value in raw.items():
        if name not in known:
            raise ModelFolderError(f"{where}: unknown field {name!r}")
        allowed = _FIELD_TYPES[known[name]]
        whole = all(type(item) is int for item in value) if isinstance(value, list) else True
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed) or not whole:
            raise ModelFolderError(f"{where}: {name} is {_REPR.repr(value)}, not {known[name]}")
        numbers = value if isinstance(value, list) else [value] if type(value) is int else []
        if any(not 0 <= number < 2**31 for number in numbers):
            raise ModelFolderError(f"{where}: {name} is {_REPR.repr(value)}, out of range")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ModelFolderError(f"{where}: {name} is {_REPR.repr(value)}, which holds a lone surrogate")
    try:
        return cls(**raw)
    except TypeError as error:
        raise ModelFolderError(f"{where}: {error}") from None
