"""Which added tokens `transformers.AutoTokenizer` ends up with, and which ids they get."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bgert.tokenizer.spec import AddedTokenSpec, build

if TYPE_CHECKING:
    from bgert.tokenizer.checkpoint_files import Checkpoint

__all__ = ["BERT_TOKENS", "EXTRA", "MPNET_TOKENS", "AddedVocabulary", "Token", "add_from_config", "named_tokens"]

BERT_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
# MPNet's pipeline is BERT's with RoBERTa's special tokens, but for the unknown one.
MPNET_TOKENS = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "[UNK]",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
NAMES = ("bos_token", "eos_token", *BERT_TOKENS)
EXTRA = ("extra_special_tokens", "additional_special_tokens")


@dataclass(frozen=True)
class Token:
    """A token before it has an id, as `tokenizers.AddedToken` is written in JSON."""

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None
    """None: matched after normalisation unless special."""

    @classmethod
    def parse(cls, raw: Any, where: str, *, special: bool) -> Token:
        """From a string or an object; `special` is used where the object does not say."""
        if isinstance(raw, str):
            return cls(raw, special=True)
        if isinstance(raw, dict):
            raw = {"special": special} | {k: v for k, v in raw.items() if k not in ("__type", "id")}
        return build(cls, raw, where)


class AddedVocabulary:
    """Hands out ids the way `tokenizers` does.

    Args:
        vocab: tokens by id.
        size: how many the model counts, from which on new tokens are numbered.
    """

    def __init__(self, vocab: list[str], size: int) -> None:
        self._ids = {token: index for index, token in enumerate(vocab) if token}
        self._vocab_size = size
        self._added: dict[str, AddedTokenSpec] = {}

    def __contains__(self, content: str) -> bool:
        return content in self._added

    def id_of(self, content: str) -> int:
        """The id of a token; KeyError if there is none."""
        return self._added[content].id if content in self._added else self._ids[content]

    def add(self, token: Token) -> None:
        """Add a token: one of the vocabulary keeps its id, others are numbered after it."""
        if not token.content:
            return
        known = self._added.get(token.content)
        special = token.special or (known is not None and known.special)
        if token.content in self._ids or known is not None:
            index = self.id_of(token.content)
        else:
            index = max([self._vocab_size, *(t.id + 1 for t in self._added.values())])
        self._added[token.content] = AddedTokenSpec(
            token.content,
            index,
            special,
            token.single_word,
            token.lstrip,
            token.rstrip,
            not special if token.normalized is None else token.normalized,
        )

    def add_listed(self, listed: Any, checkpoint: Checkpoint) -> None:
        """Add the `added_tokens` of a `tokenizer.json`."""
        if listed is not None and not isinstance(listed, list):
            raise checkpoint.error("tokenizer.json: added_tokens is not a list")
        for i, raw in enumerate(listed or []):
            token = Token.parse(raw, f"{checkpoint.folder}: tokenizer.json: added_tokens[{i}]", special=False)
            self.add(token)
            stated = raw.get("id") if isinstance(raw, dict) else None
            if token.content and stated != self.id_of(token.content):
                checkpoint.notes.append(
                    f"added token {token.content!r} has id {self.id_of(token.content)} as `tokenizers` gives it, "
                    f"although tokenizer.json says {stated}"
                )

    def tokens(self) -> list[AddedTokenSpec]:
        """All tokens, in the order in which they came."""
        return list(self._added.values())


def named_tokens(
    config: dict[str, Any],
    special_tokens_map: dict[str, Any],
    defaults: dict[str, str] = BERT_TOKENS,
    *,
    mask_takes_blanks: bool = False,
) -> dict[str, Token | None]:
    """`unk_token`, `cls_token` and so on; the older special_tokens_map.json wins where it is still read.

    With `mask_takes_blanks` a mask that is given by its text alone takes the blanks before it.
    """
    values: dict[str, Any] = {**defaults, **{name: config[name] for name in NAMES if name in config}}
    if "added_tokens_decoder" not in config:
        values.update({name: special_tokens_map[name] for name in NAMES if name in special_tokens_map})
    if mask_takes_blanks and isinstance(values.get("mask_token"), str):
        values["mask_token"] = {"content": values["mask_token"], "lstrip": True}
    return {
        name: None if raw is None else Token.parse(raw, f"special token {name}", special=True)
        for name, raw in values.items()
    }


def add_from_config(added: AddedVocabulary, checkpoint: Checkpoint, names: dict[str, Token | None]) -> None:
    """Add what the configuration files name, in the order in which transformers does."""
    decoder: dict[int, Token] = {}
    extra = [token for name in EXTRA for token in _listed(checkpoint.config, name, checkpoint)]
    named = {token.content for token in names.values() if token is not None}
    if "added_tokens_decoder" in checkpoint.config:
        raw = checkpoint.config["added_tokens_decoder"]
        if not isinstance(raw, dict):
            raise checkpoint.error("tokenizer_config.json: added_tokens_decoder is not an object")
        for index, token in raw.items():
            where = f"{checkpoint.folder}: tokenizer_config.json: added_tokens_decoder[{index!r}]"
            decoder[_index(index, where, checkpoint)] = Token.parse(token, where, special=False)
    else:
        extra += [t for name in EXTRA for t in _listed(checkpoint.special_tokens_map, name, checkpoint)]
        specials = named | {token.content for token in extra}
        for content, index in checkpoint.added_tokens.items():
            where = f"{checkpoint.folder}: added_tokens.json: {content!r}"
            decoder[_index(index, where, checkpoint)] = Token(content, special=content in specials)
        listed = checkpoint.tokenizer.get("added_tokens")
        for i, token in enumerate(listed if isinstance(listed, list) else []):
            where = f"{checkpoint.folder}: tokenizer.json: added_tokens[{i}]"
            index = token.get("id") if isinstance(token, dict) else None
            decoder[_index(index, where, checkpoint)] = Token.parse(token, where, special=False)
    for index, token in sorted(decoder.items()):
        added.add(replace(token, special=token.special or token.content in named))
        if token.content and added.id_of(token.content) != index:
            checkpoint.notes.append(
                f"added token {token.content!r} has id {added.id_of(token.content)} as AutoTokenizer gives it, "
                f"although the files say {index}"
            )
    for token in [*names.values(), *extra]:
        if token is not None and token.content not in added:
            added.add(replace(token, special=True))


def _listed(source: dict[str, Any], name: str, checkpoint: Checkpoint) -> list[Token]:
    """A list of special tokens; transformers also takes an object from role to token."""
    raw = source.get(name) or []
    items = list(raw.values()) if isinstance(raw, dict) else raw
    if not isinstance(items, list):
        raise checkpoint.error(f"{name} is not a list of tokens")
    return [Token.parse(item, f"{checkpoint.folder}: {name}", special=True) for item in items]


def _index(value: Any, where: str, checkpoint: Checkpoint) -> int:
    """A token id, which JSON keys write as a string."""
    # Nine digits: `int` refuses strings of more than some thousands with a builtin error, and ids are 32-bit.
    if isinstance(value, (int, str)) and not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,9}", str(value)):
        return int(value)
    raise checkpoint.error(f"{where} has no valid id")
