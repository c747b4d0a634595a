"""Tokenizer folders and the Hugging Face tokenizers that are their reference."""

import importlib
import json
import os
import random
import sys
import unicodedata
from pathlib import Path

import pytest

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def rng(request):
    """A random generator whose seed is printed; BGERT_TEST_SEED repeats a run."""
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    return random.Random(seed)


@pytest.fixture(scope="session")
def write_checkpoint():
    """A function that writes tokenizer files into a folder; `vocab` goes to vocab.txt and tokenizer.json."""

    def write(folder, vocab, *, config=None, tokenizer=None, vocab_txt=True, tokenizer_json=True, files=None):
        folder.mkdir(parents=True, exist_ok=True)
        if vocab_txt:
            (folder / "vocab.txt").write_bytes("".join(t + "\n" for t in vocab).encode())
        if tokenizer_json:
            body = tokenizer_json_of(vocab) | (tokenizer or {})
            (folder / "tokenizer.json").write_text(json.dumps(body), encoding="utf-8")
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        for name, content in (files or {}).items():
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        return folder

    return write


def tokenizer_json_of(vocab, **normalizer):
    """The `tokenizer.json` of a BERT tokenizer as a dict."""
    steps = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    ids = {token: index for index, token in enumerate(vocab)}

    def special(token, type_id=0):
        return {"SpecialToken": {"id": token, "type_id": type_id}}

    def text(name, type_id=0):
        return {"Sequence": {"id": name, "type_id": type_id}}

    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[token],
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for token in SPECIALS
            if token in ids
        ],
        "normalizer": {"type": "BertNormalizer"} | steps | normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), text("A"), special("[SEP]")],
            "pair": [special("[CLS]"), text("A"), special("[SEP]"), text("B", 1), special("[SEP]", 1)],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]") if t in ids},
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


@pytest.fixture(scope="session")
def tokenizer_json():
    return tokenizer_json_of


@pytest.fixture(scope="session")
def cased_vocab():
    """A cased vocabulary with Chinese, Latin, Greek, Cyrillic, kana, Hangul and combining marks."""
    blocks = [
        range(0x21, 0x7F), range(0xA1, 0x180), range(0x300, 0x340), range(0x386, 0x3D0), range(0x400, 0x460),
        range(0x5D0, 0x5EB), range(0x620, 0x64B), range(0x905, 0x940), range(0x1100, 0x1200), range(0x2010, 0x2040),
        range(0x3001, 0x3100), range(0x4E00, 0x5800), range(0xAC00, 0xB000), range(0xFF01, 0xFF60),
        range(0x1F600, 0x1F640),
    ]  # fmt: skip
    singles = [chr(cp) for block in blocks for cp in block if unicodedata.category(chr(cp)) not in ("Cn", "Zs")]
    words = ["the", "The", "hello", "Hello", "World", "token", "naïve", "Straße", "мир", "école", "日本", "un", "2024"]
    endings = ["able", "izer", "ing", "ed", "s", "ly", "ïve", "́", "ße", "ир"]
    pieces = words + singles + ["##" + piece for piece in endings + singles]
    return SPECIALS + list(dict.fromkeys(pieces))


@pytest.fixture(scope="session")
def shared_data():
    """A folder with the published vocabularies and golden ids, which is not part of the repository."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("BGERT_SHARED_DATA") or root.parent / "shared" / "data")
    if not (folder / "tokenizers" / "golden").is_dir():
        pytest.skip("no golden tokenizer data: set BGERT_SHARED_DATA to a folder with tokenizers/golden")
    return folder


def import_from(folder, name):
    """A module of a folder that is no package."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def tool():
    """A function that imports a script of tools/."""
    return lambda name: import_from(Path(__file__).resolve().parents[2] / "tools", name)


@pytest.fixture(scope="session")
def compare(tool):
    """tools/compare_tokenizers.py, for its generator of hostile text."""
    return tool("compare_tokenizers")


@pytest.fixture(scope="session")
def unigram():
    """Makes the files of small Unigram tokenizers."""
    return import_from(Path(__file__).parent, "unigram_data")


@pytest.fixture(scope="session")
def charsmap(tool, unigram):
    """A charsmap with most of NFKC."""
    return tool("charsmap_builder").charsmap(unigram.rules())
