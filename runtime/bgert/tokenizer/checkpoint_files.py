"""The files of a Hugging Face checkpoint that say how it tokenizes, decoded, and the tokenizer class they name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bgert.errors import ModelFolderError
from bgert.tokenizer.spec import LARGEST_LIMIT, read_json, vocab_lines

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "BERT_CLASSES",
    "CAMEMBERT_CLASS",
    "MPNET_CLASS",
    "OPTION",
    "PLAIN_CLASSES",
    "ROBERTA_CLASS",
    "TYPED_CLASSES",
    "XLMR_CLASS",
    "Checkpoint",
    "stated_limit",
]

CLASS_OF_MODEL_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "mpnet": "MPNetTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "roberta": "RobertaTokenizer",
}
MPNET_CLASS = "MPNetTokenizer"
BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", MPNET_CLASS)
XLMR_CLASS = "XLMRobertaTokenizer"
CAMEMBERT_CLASS = "CamembertTokenizer"
ROBERTA_CLASS = "RobertaTokenizer"
TYPED_CLASSES = ("BertTokenizer", "ElectraTokenizer")
"""Those whose calls give token types unless `model_input_names` says otherwise."""
PLAIN_CLASSES = ("PreTrainedTokenizer", "TokenizersBackend", None)
# What `tokenizers` takes off the end of a line of vocab.txt: Unicode's White_Space. `str.rstrip` takes more.
_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_MOST_NOTES = 3  # of one kind
OPTION = "--tokenizer huggingface"
"""Of `bgert export`: what runs tokenizers that bgert has none for."""


@dataclass
class Checkpoint:
    """The files of one checkpoint, decoded; an absent file is an empty object."""

    folder: Path
    tokenizer: dict[str, Any]
    """`tokenizer.json`"""
    config: dict[str, Any]
    """`tokenizer_config.json`"""
    special_tokens_map: dict[str, Any]
    added_tokens: dict[str, Any]
    model_config: dict[str, Any]
    """`config.json`"""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> Checkpoint:
        """Read the files of a folder."""
        return cls(
            folder,
            read_json(folder / "tokenizer.json"),
            read_json(folder / "tokenizer_config.json"),
            read_json(folder / "special_tokens_map.json"),
            read_json(folder / "added_tokens.json"),
            read_json(folder / "config.json"),
        )

    def error(self, message: str) -> ModelFolderError:
        """The exception to raise about this checkpoint."""
        return ModelFolderError(f"{self.folder}: {message}")

    def unsupported(self, message: str) -> ModelFolderError:
        """The exception where the checkpoint is sound, but its tokenizer is none of bgert's."""
        return self.error(
            f"{message}. `bgert export` takes it with {OPTION}: HF tokenizers makes the ids then, a package built in "
            "Rust, at its speed"
        )

    def section(self, name: str) -> dict[str, Any]:
        """An object of `tokenizer.json`, empty if it is null or absent."""
        value = self.tokenizer.get(name)
        if value is not None and not isinstance(value, dict):
            raise self.error(f"tokenizer.json: {name} is not an object")
        return value or {}

    def flag(self, name: str, default: bool | None) -> bool | None:
        """A true-or-false option of `tokenizer_config.json`."""
        value = self.config.get(name, default)
        if not isinstance(value, bool) and not (value is None and default is None):
            raise self.error(f"tokenizer_config.json: {name} is {value!r}, not true or false")
        return value

    @property
    def class_name(self) -> str | None:
        """The tokenizer class that AutoTokenizer would take."""
        name = self.config.get("tokenizer_class") or self.model_config.get("tokenizer_class")
        name = name or CLASS_OF_MODEL_TYPE.get(str(self.model_config.get("model_type")))
        return name.removesuffix("Fast") if isinstance(name, str) else None

    @property
    def model_type(self) -> str | None:
        """The kind of model in `tokenizer.json`; old files do not name it."""
        model = self.section("model")
        if "type" in model or not model:
            return model.get("type")
        if "merges" in model:
            return "BPE"
        return "Unigram" if isinstance(model.get("vocab"), list) else "WordPiece"

    @property
    def max_length(self) -> int | None:
        """The limit that the tokenizer's configuration states."""
        try:
            return stated_limit(self.config)[0]
        except ValueError as error:
            raise self.error(str(error)) from None

    def read_vocab_txt(self, path: Path) -> tuple[list[str], int]:
        """Tokens by id, and how many `tokenizers` counts.

        One a line, without blanks at its end; of a token that is on several lines the last counts.

        Raises:
            ModelFolderError: the file is missing, empty or not UTF-8.
        """
        lines = [line.rstrip(_BLANKS) for line in vocab_lines(path)]
        places = {token: index for index, token in enumerate(lines)}
        repeated = [index for index, token in enumerate(lines) if token and places[token] != index]
        for index in repeated[:_MOST_NOTES]:
            self.notes.append(
                f"{path.name}: {lines[index]!r} is on the lines {index + 1} and {places[lines[index]] + 1}: "
                "the last counts, as in AutoTokenizer"
            )
        self._more(repeated, "lines that come again")
        for index in repeated:
            lines[index] = ""
        return lines, len(places)

    def read_vocab_object(self, raw: Any, where: str) -> tuple[list[str], int]:
        """Tokens by id of an object from token to id, and how many there are.

        Raises:
            ModelFolderError: it is none, or gives ids that cannot be.
        """
        if not isinstance(raw, dict) or not raw:
            raise self.error(f"{where} is not an object with tokens")
        vocab = [""] * (2 * len(raw))
        for token, index in raw.items():
            if type(index) is not int or not 0 <= index < len(vocab):
                raise self.error(f"{where} gives {token!r} the id {index!r}")
            if vocab[index]:
                raise self.error(f"{where} gives {token!r} and {vocab[index]!r} one id, {index}")
            if not token.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in token):
                raise self.error(f"{where}: {token!r} holds a lone surrogate")
            vocab[index] = token
        while vocab and not vocab[-1]:
            vocab.pop()
        return vocab, len(raw)

    def without_line_breaks(self, vocab: list[str]) -> list[str]:
        """The vocabulary without tokens that no text yields and no `vocab.txt` can hold."""
        broken = [index for index, token in enumerate(vocab) if "\n" in token or "\r" in token]
        for index in broken[:_MOST_NOTES]:
            self.notes.append(f"the token {vocab[index]!r} is left out: it holds a line break, so no text yields it")
        self._more(broken, "tokens with a line break")
        kept = list(vocab)
        for index in broken:
            kept[index] = ""
        return kept

    def _more(self, found: list[int], what: str) -> None:
        if len(found) > _MOST_NOTES:
            self.notes.append(f"and {len(found) - _MOST_NOTES} more {what}")


def stated_limit(config: dict[str, Any]) -> tuple[int | None, str]:
    """The limit in tokens that `tokenizer_config.json` states, None if none, and the name of its field.

    Old files call it `max_len`; transformers reads that where there is no `model_max_length`, not even null.

    Raises:
        ValueError: it is not a number from 1.
    """
    name = "model_max_length" if "model_max_length" in config or "max_len" not in config else "max_len"
    limit = config.get(name)
    if limit is None:
        return None, name
    if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not limit >= 1:
        raise ValueError(f"tokenizer_config.json: {name} is {limit!r}")
    return int(limit) if limit <= LARGEST_LIMIT else None, name
