"""The tokenizer core of bgert. Use bgert.Tokenizer."""

from collections.abc import Sequence

import numpy
import numpy.typing

class AddedToken:
    def __init__(
        self,
        *,
        content: str,
        token_id: int,
        special: bool,
        single_word: bool,
        lstrip: bool,
        rstrip: bool,
        normalized: bool,
    ) -> None: ...

class TextModel:
    @property
    def vocab_size(self) -> int: ...
    def token(self, token_id: int) -> str | None: ...
    def decode(self, ids: numpy.typing.NDArray[numpy.int64], *, skip_special_tokens: bool) -> str: ...
    def encode_spans(
        self, text: str, *, split_special_tokens: bool, as_hf: bool
    ) -> tuple[numpy.typing.NDArray[numpy.int32], numpy.typing.NDArray[numpy.int32]]: ...

class WordPieceModel(TextModel):
    def __init__(
        self,
        vocab: Sequence[str],
        *,
        unk_token: str,
        continuing_subword_prefix: str,
        max_input_chars_per_word: int,
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: bool | None,
        lowercase: bool,
        added_tokens: Sequence[AddedToken],
    ) -> None: ...

class UnigramModel(TextModel):
    def __init__(self, data: bytes, *, added_tokens: Sequence[AddedToken]) -> None: ...

class BpeModel(TextModel):
    def __init__(
        self,
        data: bytes,
        *,
        pattern: str,
        nfc: bool,
        ignore_merges: bool,
        add_prefix_space: bool,
        trim_offsets: bool,
        keep_first_space: bool,
        added_tokens: Sequence[AddedToken],
    ) -> None: ...

class Template:
    def __init__(
        self,
        *,
        prefix: Sequence[int],
        middle: Sequence[int],
        suffix: Sequence[int],
        prefix_type: int,
        first_type: int,
        middle_type: int,
        second_type: int,
        suffix_type: int,
    ) -> None: ...

class BatchEncoder:
    def __init__(self, model: TextModel, single: Template, pair: Template) -> None: ...
    def encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        max_length: int | None,
        truncation: str,
        query_max_length: int | None,
        truncation_side: str,
        add_special_tokens: bool,
        split_special_tokens: bool,
        threads: int,
    ) -> tuple[
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.int32],
        numpy.typing.NDArray[numpy.bool_],
    ]: ...

def json_rows(values: numpy.typing.NDArray[numpy.float32]) -> list[bytes]: ...
def base64_rows(values: numpy.typing.NDArray[numpy.uint8]) -> list[bytes]: ...
