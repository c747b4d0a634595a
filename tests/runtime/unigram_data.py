"""A small Unigram tokenizer in the form of XLM-RoBERTa's: vocabulary, charsmap, and the files of a checkpoint."""

import base64
import json
import random
import unicodedata

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "hello",
    "world",
    "token",
    "izer",
    "un",
    "believ",
    "able",
    "ing",
    "ed",
    "s",
    "ly",
    "season",
    "naïve",
    "café",
    "straße",
    "мир",
    "москва",
    "привет",
    "ελλάδα",
    "शांति",
    "क्षमा",
    "สวัสดี",
    "한국어",
    "가나다",
    "日本",
    "語",
    "日本語",
    "中国",
    "人民",
    "中华人民共和国",
    "カタカナ",
    "ガ",
    "が",
    "http",
    "://",
    "www",
    ".",
    ",",
    ";",
    ":",
    "!",
    "?",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "/",
    "\\",
    "-",
    "_",
    "#",
    "@",
    "0",
    "1",
    "2",
    "3",
    "2024",
    "1⁄2",
    "...",
    "<mask>",
    "<s>",
    "a",
    "aa",
    "aaa",
    "aaaa",
    "ab",
    "ba",
    "abab",
]
BLOCKS = [(0x21, 0x7F), (0xA1, 0x180), (0x300, 0x320), (0x391, 0x3CA), (0x410, 0x450), (0x5D0, 0x5EB), (0x621, 0x64B),
          (0x905, 0x940), (0xE01, 0xE3B), (0x1100, 0x1113), (0x3041, 0x3097), (0x30A1, 0x30FB), (0x4E00, 0x4F00),
          (0xAC00, 0xAC80), (0x1F600, 0x1F610)]  # fmt: skip
SCORES = [-2.5, -3.0, -3.25, -4.0, -5.5, -6.0, -6.0, -8.0, -9.125]
SPACES = [0x09, 0x0A, 0x0C, 0x0D, 0xA0, 0x1680, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF]


def vocabulary(seed=5):
    """Pieces with scores of few values, so that ties are frequent; one score has all digits."""
    draw = random.Random(seed)
    singles = [chr(cp) for first, stop in BLOCKS for cp in range(first, stop) if draw.random() < 0.8]
    cut = [word[i:j] for word in PIECES for i in range(len(word)) for j in range(i + 1, len(word) + 1)]
    cut = [piece for piece in cut if piece not in ("<mask>", "<s>") and draw.random() < 0.3]
    marked = ["\u2581" + piece for piece in [*PIECES, *cut, *singles] if draw.random() < 0.4]
    pieces = dict.fromkeys(["\u2581", *PIECES, *cut, *singles, *marked])
    for piece in [*SPECIALS, "<mask>"]:
        pieces.pop(piece, None)
    body = [(piece, draw.choice(SCORES)) for piece in pieces]
    body[7] = (body[7][0], -11.493908882141113)
    return [*((token, 0.0) for token in SPECIALS), *body, ("<mask>", 0.0)]


def rules():
    """Most of NFKC, spaces, deletions, and rules that are rare: marks, tokens and word marks that come out of one."""
    found = {}
    for cp in [*range(0xA0, 0x3000), *range(0x3001, 0x3400), *range(0xF900, 0x10000), *range(0x1D400, 0x1D420)]:
        char = chr(cp)
        if unicodedata.category(char) in ("Cn", "Cs"):
            continue
        if unicodedata.normalize("NFKC", char) != char:
            found[char] = unicodedata.normalize("NFKC", char)
        parts = unicodedata.normalize("NFD", char)
        if len(parts) == 2 and unicodedata.normalize("NFC", parts) == char:
            found[parts] = char
    found.update({chr(cp): " " for cp in SPACES})
    found.update({chr(cp): "" for cp in [*range(1, 9), 0x0B, *range(0x0E, 0x20), 0x7F]})
    found.update({"\u2581": " ", "☺": "<mask>", "☹": "a <mask>", "\u0601": "p", "\u0600\u0301": "q", "가": "나"})
    found.update(
        {"\u2603": "x\u2581y", "\u2604": "long " * 20, "\u2605": "l" * 60, "\u2606": "\u2581", "\u0301": "\u0300"}
    )
    return found


def tokenizer_json(vocab, charsmap, *, mask_normalized=True, extra=()):
    """`tokenizer.json` as a dict."""
    ids = {token: index for index, (token, _) in enumerate(vocab)}
    added = [{"id": ids[t], "content": t, "normalized": False, "lstrip": False} for t in SPECIALS]
    added.append({"id": ids["<mask>"], "content": "<mask>", "normalized": mask_normalized, "lstrip": True})
    added = [{"single_word": False, "rstrip": False, "special": True} | token for token in added]

    def special(token):
        return {"SpecialToken": {"id": token, "type_id": 0}}

    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    start, stop = special("<s>"), special("</s>")
    normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*added, *extra],
        "normalizer": normalizer if charsmap else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [start, first, stop],
            "pair": [start, first, stop, stop, second, stop],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("<s>", "</s>")},
        },
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": vocab, "byte_fallback": False},
    }


def mask_token(*, normalized=True):
    token = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": normalized}
    return token | {"rstrip": False, "single_word": False}


def config(**more):
    """`tokenizer_config.json` as the rerankers have it."""
    names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>"}
    names |= {"pad_token": "<pad>", "mask_token": mask_token(), "tokenizer_class": "XLMRobertaTokenizer"}
    return names | {"model_max_length": 512} | more


def write(folder, body, settings):
    """The files of a checkpoint; a part that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "xlm-roberta"}')
    for name, content in (("tokenizer.json", body), ("tokenizer_config.json", settings)):
        if content is not None:
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def sentencepiece_model(vocab, charsmap, *, model_type=1, types=None):
    """A `.model` file; `vocab` is in SentencePiece's own order."""
    import struct

    def varint(value):
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def block(number, content):
        return varint(number << 3 | 2) + varint(len(content)) + content

    def number(field, value):
        return varint(field << 3) + varint(value)

    out = b""
    for index, (piece, score) in enumerate(vocab):
        kind = (types or {}).get(index, 2 if piece == "<unk>" else 3 if piece in ("<s>", "</s>") else 1)
        out += block(1, block(1, piece.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number(3, kind))
    out += block(2, number(3, model_type) + number(40, 0))
    return out + block(3, block(1, b"nmt_nfkc") + block(2, charsmap) + number(3, 1))
