"""The files beside a portable graph by which other programs make its inputs; bgert reads none of them.

`tokenizer.json` is what fastembed, Vespa, OpenSearch and clients of Triton read, so it is made of the tokenizer that
transformers opens for the checkpoint, with the model's limit and right padding, and compared with bgert's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bgert.errors import install_extra
from bgert_export.errors import CheckpointError, ExtraNotInstalledError, UnsupportedCheckpointError
from bgert_export.verification import texts as built_in

if TYPE_CHECKING:
    from pathlib import Path

    from bgert.tokenizer import Tokenizer
    from bgert_export.checkpoint import CheckpointFolder

__all__ = ["write_portable_files"]


def write_portable_files(folder: Path, checkpoint: CheckpointFolder, ours: Tokenizer, max_tokens: int) -> None:
    """Write `config.json`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`.

    Args:
        folder: the model folder.
        checkpoint: it is made of.
        ours: bgert's tokenizer.
        max_tokens: the model's limit, special tokens counted.

    Raises:
        ExtraNotInstalledError: transformers is not installed.
        CheckpointError: transformers cannot make a tokenizer.json of it.
        UnsupportedCheckpointError: tokenizer.json would give other tokens than bgert.
    """
    try:
        import transformers
    except ImportError:
        raise ExtraNotInstalledError(
            f"the target portable needs transformers, to write tokenizer.json: {install_extra('verify')}"
        ) from None
    from bgert_export.verification.torch_reference import quiet

    source = str(checkpoint.transformer_folder)
    with quiet():
        try:
            opened = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            backend = opened.backend_tokenizer
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(f"transformers makes no tokenizer.json of {source}: {error}") from error
    backend.enable_truncation(max_tokens)
    backend.enable_padding(pad_id=opened.pad_token_id, pad_token=opened.pad_token)
    backend.save(str(folder / "tokenizer.json"))
    special = {token.content: token for token in backend.get_added_tokens_decoder().values() if token.special}
    names = opened.special_tokens_map
    flags = ("content", "single_word", "lstrip", "rstrip", "normalized")
    _write(folder / "config.json", checkpoint.config)
    _write(
        folder / "special_tokens_map.json",
        # With their flags: fastembed adds them anew, and `<mask>` without lstrip would keep the space before it.
        {
            name: {flag: getattr(special[token], flag) for flag in flags}
            for name, token in names.items()
            if token in special
        },
    )
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_tokens,
            "model_input_names": opened.model_input_names,
            "padding_side": "right",
            "truncation_side": "right",
            **{name: token for name, token in names.items() if isinstance(token, str)},
        },
    )
    _require_equal(folder, checkpoint, ours, max_tokens)


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")


def _require_equal(folder: Path, checkpoint: CheckpointFolder, ours: Tokenizer, max_tokens: int) -> None:
    """Raise UnsupportedCheckpointError unless the written file gives the tokens that bgert gives."""
    import tokenizers

    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    theirs.no_padding()
    long = built_in.long_text(max_tokens)
    texts: list[tuple[str, str | None]] = [(text, None) for text in [*built_in.mixed(), long]]
    if checkpoint.architecture.kind == "reranker":
        documents = [text for query, few in built_in.pairs() for text in few]
        texts = list(zip(built_in.mixed(), documents, strict=False))
        texts += [("which length is this?", long), (long, "a short document")]
    reads_types = checkpoint.architecture.reads_token_types
    for text, second in texts:
        expected = ours.encode_batch([text], None if second is None else [second], max_length=max_tokens)
        found = theirs.encode(text, second)
        if found.ids != expected.ids.tolist() or (reads_types and found.type_ids != expected.type_ids.tolist()):
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            raise UnsupportedCheckpointError(
                f"the checkpoint's tokenizer.json gives other tokens for {shown!r} than transformers makes of all its "
                f"files, so programs that read it alone would differ: leave the target portable out"
            )
