"""Reads where special tokens stand from the `post_processor` of a `tokenizer.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bgert.tokenizer.spec import TemplateSpec, build

if TYPE_CHECKING:
    from bgert.tokenizer.checkpoint_files import Checkpoint

__all__ = ["bert_templates", "read_templates", "roberta_templates"]


def bert_templates(cls_id: int, sep_id: int) -> tuple[TemplateSpec, TemplateSpec]:
    """`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, the second text and its separator of type 1."""
    return (
        TemplateSpec(prefix=[cls_id], suffix=[sep_id]),
        TemplateSpec(prefix=[cls_id], middle=[sep_id], suffix=[sep_id], second_type=1, suffix_type=1),
    )


def roberta_templates(cls_id: int, sep_id: int) -> tuple[TemplateSpec, TemplateSpec]:
    """`<s> A </s>` and `<s> A </s> </s> B </s>`, all of type 0."""
    return (
        TemplateSpec(prefix=[cls_id], suffix=[sep_id]),
        TemplateSpec(prefix=[cls_id], middle=[sep_id, sep_id], suffix=[sep_id]),
    )


def read_templates(checkpoint: Checkpoint, section: dict[str, Any] | None = None) -> tuple[TemplateSpec, TemplateSpec]:
    """The templates for one text and for a pair, by the post-processor or the part of it that `section` is.

    Raises:
        ModelFolderError: the post-processor is one that bgert does not know.
    """
    section = checkpoint.section("post_processor") if section is None else section
    kind = section.get("type")
    if kind is None:
        return TemplateSpec(prefix=[], suffix=[]), TemplateSpec(prefix=[], suffix=[], second_type=1)
    if kind in ("BertProcessing", "RobertaProcessing"):
        try:
            cls_id, sep_id = section["cls"][1], section["sep"][1]
        except (KeyError, IndexError, TypeError):
            cls_id = sep_id = None
        if any(type(index) is not int or not 0 <= index < 2**31 for index in (cls_id, sep_id)):
            raise checkpoint.error(f"tokenizer.json: post_processor needs cls and sep with ids for {kind}")
        if kind == "BertProcessing":
            return bert_templates(cls_id, sep_id)
        return roberta_templates(cls_id, sep_id)
    if kind != "TemplateProcessing":
        raise checkpoint.unsupported(f"tokenizer.json: post_processor.type {kind!r} is not supported")
    try:
        return _template(checkpoint, section, "single"), _template(checkpoint, section, "pair")
    except (KeyError, AttributeError, TypeError):
        raise checkpoint.error("tokenizer.json: post_processor is not a complete TemplateProcessing") from None


def _template(checkpoint: Checkpoint, section: dict[str, Any], name: str) -> TemplateSpec:
    """One template of a TemplateProcessing."""
    wanted = ["A"] if name == "single" else ["A", "B"]
    parts: list[tuple[list[int], set[int]]] = [([], set())]  # ids and types around the texts
    texts: list[str] = []
    types: list[int] = []
    for piece in section[name]:
        if "Sequence" in piece:
            texts.append(piece["Sequence"]["id"])
            types.append(piece["Sequence"]["type_id"])
            parts.append(([], set()))
        else:
            token = piece["SpecialToken"]
            parts[-1][0].extend(section["special_tokens"][token["id"]]["ids"])
            parts[-1][1].add(token["type_id"])
    if texts != wanted or any(len(kinds) > 1 for _, kinds in parts):
        raise checkpoint.unsupported(f"tokenizer.json: post_processor.{name} is a template that bgert does not know")
    (prefix, prefix_type), *middles, (suffix, suffix_type) = [(ids, next(iter(kinds), 0)) for ids, kinds in parts]
    middle, middle_type = middles[0] if middles else ([], 0)
    fields = {
        "prefix": prefix,
        "middle": middle,
        "suffix": suffix,
        "prefix_type": prefix_type,
        "first_type": types[0],
        "middle_type": middle_type,
        "second_type": types[1] if len(types) > 1 else 0,
        "suffix_type": suffix_type,
    }
    return build(TemplateSpec, fields, f"{checkpoint.folder}: tokenizer.json: post_processor.{name}")
