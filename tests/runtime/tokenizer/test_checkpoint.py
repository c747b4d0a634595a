"""Checkpoint folders against `transformers.AutoTokenizer`, and what is refused."""

import json
import os

import pytest

from bgert.errors import ModelFolderError, ModelNotFoundError
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.checkpoint import read_checkpoint
from bgert.tokenizer.spec import TokenizerSpec

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = [chr(cp) for cp in range(ord("A"), ord("z") + 1) if chr(cp).isalpha()]
VOCAB = [
    *SPECIALS, *LETTERS, *".,!éÉ中文", "hello", "Hello", "foo", "hel",
    *("##" + piece for piece in [*LETTERS, "lo", "é", "中", "文"]),
]  # fmt: skip
TEXTS = [
    "Hello hello É é Café",
    "中文中 hel lo",
    "[CLS] x [MASK]y <new> <Tag>  <extra>z foo Foo",
    "a" * 120,
    "[unused1] <s>",
    "É<new>b",
    " [MASK] [MASK] a",
    "foo  <mask> hel<mask>lo </s> <pad>",
]
BERT = {"tokenizer_class": "BertTokenizer"}
BACKEND = {"tokenizer_class": "TokenizersBackend"}
NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
    "lowercase": True,
}  # fmt: skip
NEW = {"content": "<new>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False, "special": False}
MASK = {"content": "[MASK]", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}

A = {"id": "A", "type_id": 0}

MPNET = {"tokenizer_class": "MPNetTokenizer"}
MPNET_VOCAB = ["<s>", "<pad>", "</s>", *VOCAB, "<mask>"]

AGREEING = {
    "class": {"config": BERT},
    "fast class": {"config": {"tokenizer_class": "BertTokenizerFast", "model_max_length": 512}},
    "no limit": {"config": BERT | {"model_max_length": 10**30}},
    "no class": {"config": {"do_lower_case": False}},
    "class from config.json": {"config": {"do_lower_case": False}, "files": {"config.json": {"model_type": "bert"}}},
    "tokenizer.json alone": {},
    "vocab.txt and config.json": {"tokenizer_json": False, "files": {"config.json": {"model_type": "distilbert"}}},
    "vocab.txt": {"config": BERT | {"do_lower_case": False}, "tokenizer_json": False},
    "case by tokenizer_config.json": {"config": BERT | {"do_lower_case": False}},
    "case by default": {"config": BERT, "tokenizer": {"normalizer": NORMALIZER | {"lowercase": False}}},
    "whole Chinese words": {"config": BERT | {"tokenize_chinese_chars": False}},
    "accents kept": {"config": BERT | {"strip_accents": False}},
    "tokenizer.json as it is": {"config": {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False}},
    "named tokens are added": {"config": BACKEND | {"mask_token": "<Tag>", "additional_special_tokens": ["<extra>"]}},
    "no types": {"config": BERT | {"model_input_names": ["input_ids", "attention_mask"]}},
    "no types, as it is": {"config": BACKEND | {"model_input_names": ["input_ids"]}},
    "a class without types": {"config": {"tokenizer_class": "DistilBertTokenizer"}},
    "a fast class without types": {"config": {"tokenizer_class": "DistilBertTokenizerFast"}, "tokenizer_json": False},
    "types against the class": {
        "config": {"tokenizer_class": "DistilBertTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}
    },
    "other classes": {"config": {"tokenizer_class": "ElectraTokenizer"}},
    "added_tokens_decoder": {
        "config": BERT | {"added_tokens_decoder": {str(len(VOCAB)): NEW, "4": MASK | {"special": True}}}
    },
    "added id out of order": {"config": BERT | {"added_tokens_decoder": {"5000": NEW}}},
    "extra_special_tokens": {"config": BERT | {"extra_special_tokens": ["<extra>", "<Tag>"]}},
    "extra_special_tokens by role": {"config": BERT | {"extra_special_tokens": {"x_token": "<extra>"}}},
    "additional in special_tokens_map": {
        "config": BERT,
        "files": {"special_tokens_map.json": {"additional_special_tokens": ["<extra>"]}},
    },
    "special_tokens_map": {"config": BERT, "files": {"special_tokens_map.json": {"mask_token": MASK}}},
    "special_tokens_map, vocab.txt": {
        "config": BERT,
        "tokenizer_json": False,
        "files": {"special_tokens_map.json": {"mask_token": MASK}},
    },
    "other mask": {"config": BERT, "files": {"special_tokens_map.json": {"mask_token": "foo"}}},
    "added_tokens.json": {
        "config": BERT,
        "tokenizer_json": False,
        "files": {"added_tokens.json": {"<new>": len(VOCAB), "<Tag>": len(VOCAB) + 1}},
    },
    "bos token": {"config": BERT | {"bos_token": "<s>"}},
    "other cls and sep": {"config": BERT | {"cls_token": "foo", "sep_token": "hel"}},
    "other unk": {"config": BERT | {"unk_token": "foo"}},
    "no mask": {"config": BERT | {"mask_token": None}},
    "pad not in the vocabulary": {"config": BERT, "vocab": VOCAB[1:]},
    "mask as object": {"config": BERT | {"mask_token": MASK | {"__type": "AddedToken"}}},
    "MPNet": {"config": MPNET, "vocab": MPNET_VOCAB},
    "MPNet by config.json": {
        "config": {"do_lower_case": True},
        "vocab": MPNET_VOCAB,
        "files": {"config.json": {"model_type": "mpnet"}},
    },
    "MPNet, vocab.txt": {"config": MPNET, "vocab": MPNET_VOCAB, "tokenizer_json": False},
    "MPNet, cased": {"config": MPNET | {"do_lower_case": False}, "vocab": MPNET_VOCAB},
    "MPNet, mask in the map": {
        "config": MPNET,
        "vocab": MPNET_VOCAB,
        "files": {"special_tokens_map.json": {"mask_token": "<mask>"}},
    },
    "MPNet, other mask": {"config": MPNET | {"mask_token": MASK | {"__type": "AddedToken"}}, "vocab": MPNET_VOCAB},
    "MPNet, tokens as objects": {
        "config": MPNET | {"added_tokens_decoder": {str(MPNET_VOCAB.index("<mask>")): MASK | {"content": "<mask>"}}},
        "vocab": MPNET_VOCAB,
    },
    "no post-processor": {"config": BERT, "tokenizer": {"post_processor": None}},
    "no post-processor, as it is": {"config": BACKEND, "tokenizer": {"post_processor": None}},
    "BertProcessing": {
        "config": BACKEND,
        "tokenizer": {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}},
    },
    "RobertaProcessing": {
        "config": BACKEND,
        "tokenizer": {
            "post_processor": {
                "type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "trim_offsets": True,
                "add_prefix_space": False,
            }
        },
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def auto_tokenizer():
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    return pytest.importorskip("transformers").AutoTokenizer


@pytest.mark.parametrize("name", AGREEING)
@pytest.mark.filterwarnings("default")
def test_ids_are_those_of_auto_tokenizer(auto_tokenizer, write_checkpoint, tmp_path, name):
    case = dict(AGREEING[name])
    folder = write_checkpoint(tmp_path, case.pop("vocab", VOCAB), **case)
    theirs = auto_tokenizer.from_pretrained(folder)
    ours = Tokenizer.from_folder(folder)
    assert ours.encode_batch(TEXTS).tolist() == theirs(TEXTS)["input_ids"]
    expected = theirs(TEXTS, TEXTS[::-1])
    batch = ours.encode_batch(TEXTS, TEXTS[::-1])
    assert batch.tolist() == expected["input_ids"]
    types = expected.get("token_type_ids") or [[0] * len(row) for row in expected["input_ids"]]
    assert batch.type_ids.tolist() == [value for row in types for value in row]
    assert ours.max_length == (None if theirs.model_max_length > 10**9 else theirs.model_max_length)


@pytest.mark.parametrize("name", ["case by default", "added id out of order", "other cls and sep", "no types"])
def test_disagreements_are_noted(write_checkpoint, tmp_path, name):
    spec = read_checkpoint(write_checkpoint(tmp_path, VOCAB, **AGREEING[name]))
    assert len(spec.notes) == 1
    assert "although" in spec.notes[0] or "type 0" in spec.notes[0]


def test_agreeing_files_leave_no_note(demo_checkpoint, shared_data):
    for folder in (demo_checkpoint, shared_data / "tokenizers" / "bge-small-zh-v1.5"):
        assert read_checkpoint(folder).notes == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"tokenizer_json": False, "vocab_txt": False}, "neither tokenizer.json nor vocab.txt"),
        ({"config": {"tokenizer_class": "RobertaTokenizer"}}, "model.type 'WordPiece'"),
        ({"config": {"tokenizer_class": "CamembertTokenizer"}}, "model.type 'WordPiece'"),
        ({"config": MPNET}, "cls_token '<s>'"),
        ({"config": BERT, "vocab": VOCAB[2:]}, "unk_token"),
        ({"config": BERT, "vocab": [t for t in VOCAB if t != "[CLS]"]}, "cls_token"),
        ({"config": BERT | {"sep_token": None}}, "sep_token"),
        ({"config": BERT, "tokenizer_json": False, "vocab": []}, "empty"),
        ({"config": BERT | {"do_lower_case": "yes"}}, "do_lower_case"),
        ({"config": BERT | {"model_max_length": -1}}, "model_max_length"),
        ({"config": BERT | {"truncation_side": "left"}}, "truncation_side"),
        ({"config": BERT | {"split_special_tokens": True}}, "split_special_tokens"),
        ({"config": BERT | {"added_tokens_decoder": []}}, "added_tokens_decoder"),
        ({"config": BERT | {"added_tokens_decoder": {"x": NEW}}}, "valid id"),
        ({"config": BERT | {"added_tokens_decoder": {"7": {"content": 3}}}}, "content"),
        ({"config": BERT | {"model_input_names": None}}, "model_input_names is None"),
        ({"config": BERT | {"model_input_names": "token_type_ids"}}, "model_input_names"),
        ({"config": BERT | {"extra_special_tokens": 3}}, "extra_special_tokens"),
        ({"tokenizer": {"normalizer": {"type": "Lowercase"}}}, "normalizer.type 'Lowercase'"),
        ({"tokenizer": {"normalizer": NORMALIZER | {"lowercase": 1}}}, "lowercase"),
        ({"tokenizer": {"normalizer": None}}, "normalizer.type None"),
        ({"tokenizer": {"pre_tokenizer": {"type": "Whitespace"}}}, "pre_tokenizer.type 'Whitespace'"),
        ({"tokenizer": {"model": {"type": "BPE", "vocab": {}, "merges": []}}}, "model.vocab"),
        ({"tokenizer": {"model": {"vocab": {}, "merges": []}}}, "model.vocab"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": []}}}, "model.vocab"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"a": 99}}}}, "99"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 0}}}}, "one id"),
        ({"tokenizer": {"model": 3}}, "model is not an object"),
        ({"tokenizer": {"post_processor": {"type": "ByteLevel"}}}, "post_processor.type 'ByteLevel'"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"": 0}}}}, "unk_token"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"a\ud800": 0}}}}, "lone surrogate"),
        ({"tokenizer": {"post_processor": {"type": "BertProcessing"}}}, "cls and sep"),
        *(
            (
                {"tokenizer": {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", bad], "cls": ["a", 2]}}},
                "cls and sep",
            )
            for bad in (-1, 2.5, "3", True, None, 2**31)
        ),
        *(
            (
                {
                    "config": BACKEND,
                    "tokenizer": {
                        "post_processor": {
                            "type": "TemplateProcessing",
                            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": A | changes}],
                            "pair": [{"Sequence": A}, {"Sequence": {"id": "B", "type_id": 1}}],
                            "special_tokens": {"x": {"ids": [bad]}},
                        }
                    },
                },
                "post_processor",
            )
            for changes, bad in [
                *(({}, bad) for bad in (-1, 2.5, "3", True, None, [2], 2**31)),
                *(({"type_id": bad}, 2) for bad in (-1, 2.5, "3", True, None, [2], 2**31)),
            ]
        ),
        ({"tokenizer": {"post_processor": {"type": "TemplateProcessing", "single": [{}]}}}, "TemplateProcessing"),
        (
            {"tokenizer": {"post_processor": {"type": "TemplateProcessing", "single": [], "pair": []}}},
            "post_processor.single",
        ),
        ({"tokenizer": {"added_tokens": {}}}, "added_tokens"),
        ({"tokenizer": {"added_tokens": [NEW | {"id": 9, "content": "\u0301"}]}}, "normalises to nothing"),
    ],
)
def test_what_is_refused(write_checkpoint, tmp_path, case, message):
    case = dict(case)
    folder = write_checkpoint(tmp_path / "model", case.pop("vocab", VOCAB), **case)
    with pytest.raises(ModelFolderError, match=message) as raised:
        Tokenizer.from_folder(folder)
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000,
     b'{"a": %s1%s}' % (b"[" * 150, b"]" * 150),
     b'{"a": %s}' % (b"9" * 5000), b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"],
)  # fmt: skip
def test_malformed_json_names_the_file(write_checkpoint, tmp_path, name, content):
    folder = write_checkpoint(tmp_path, VOCAB, config=BERT)
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=name):
        Tokenizer.from_folder(folder)


def test_vocabulary_that_is_not_utf8(write_checkpoint, tmp_path):
    folder = write_checkpoint(tmp_path, VOCAB, config=BERT, tokenizer_json=False)
    (folder / "vocab.txt").write_bytes(b"[UNK]\n\xff\n")
    with pytest.raises(ModelFolderError, match="byte 6"):
        Tokenizer.from_folder(folder)


def test_missing_folder_and_file_instead_of_folder(tmp_path):
    with pytest.raises(ModelNotFoundError) as raised:
        Tokenizer.from_folder(tmp_path / "nowhere")
    assert isinstance(raised.value, FileNotFoundError)
    (tmp_path / "file").touch()
    with pytest.raises(ModelFolderError, match="is a file"):
        Tokenizer.from_folder(tmp_path / "file")


@pytest.mark.parametrize("name", AGREEING)
def test_write_and_read_are_inverse(write_checkpoint, tmp_path, name):
    case = dict(AGREEING[name])
    spec = read_checkpoint(write_checkpoint(tmp_path / "in", case.pop("vocab", VOCAB), **case))
    (tmp_path / "out").mkdir()
    section = json.loads(json.dumps(spec.write(tmp_path / "out")))
    assert sorted(section) == ["files", "kind", "settings"]
    assert section["files"] == ["vocab.txt"]
    back = TokenizerSpec.read(tmp_path / "out", section, spec.max_length)
    assert (back.vocab, back.model, back.added_tokens) == (spec.vocab, spec.model, spec.added_tokens)
    assert (back.single, back.pair, back.kind) == (spec.single, spec.pair, spec.kind)
    assert Tokenizer(back).encode_batch(TEXTS).tolist() == Tokenizer(spec).encode_batch(TEXTS).tolist()


def test_vocabulary_with_gaps_in_its_ids(write_checkpoint, tmp_path, tokenizer_json):
    body = tokenizer_json(VOCAB)
    body["model"]["vocab"] = {token: index + (index > 40) for token, index in body["model"]["vocab"].items()}
    spec = read_checkpoint(write_checkpoint(tmp_path / "in", VOCAB, tokenizer=body, vocab_txt=False))
    section = spec.write(tmp_path)
    assert TokenizerSpec.read(tmp_path, section).vocab == spec.vocab
    assert Tokenizer(spec).encode_batch(["foo"]).tolist() == [[2, VOCAB.index("foo") + 1, 3]]


@pytest.mark.parametrize("config", [BERT, BACKEND])
@pytest.mark.parametrize("token", ["a\nb", "\n", "foo\r", "a\r\nb", "##\n"])
def test_a_token_with_a_line_break_keeps_its_place(auto_tokenizer, write_checkpoint, tmp_path, token, config):
    folder = write_checkpoint(tmp_path / "in", [*VOCAB[:60], token, *VOCAB[60:]], config=config, vocab_txt=False)
    texts = [*TEXTS, f"a {token} b", token]
    theirs = auto_tokenizer.from_pretrained(folder)(texts)["input_ids"]
    spec = read_checkpoint(folder)
    assert any("line break" in note for note in spec.notes)
    assert Tokenizer(spec).encode_batch(texts).tolist() == theirs
    section = spec.write(tmp_path)
    assert Tokenizer(TokenizerSpec.read(tmp_path, section)).encode_batch(texts).tolist() == theirs


# Lines of a vocab.txt between the special tokens and the rest. `tokenizers` strips White_Space from their ends.
ODD_LINES = {
    **{
        f"blank U+{code:04X}": f"new{chr(code)}tok{chr(code)}"
        for code in (0x9, 0xB, 0xC, 0xD, 0x1C, 0x1F, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x200A, 0x200B, 0x2028,
                     0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF, 0x0)
    },
    "carriage return": "newtok\r",
    "several": "newtok \t\u3000\xa0",
    "before": " newtok",
    "an empty line": "newtok\n\nmore",
    "blank lines": "newtok\n \n\u2028\nmore",
    "twice": "newtok\nmore\nnewtok",
    "twice when stripped": "newtok\nmore\nnewtok \nnewtok\t",
    "a letter again": "newtok\na",
    "as a piece": "##tok \nnew ",
}  # fmt: skip


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("name", ODD_LINES)
def test_vocab_txt_is_read_as_auto_tokenizer_reads_it(auto_tokenizer, write_checkpoint, tmp_path, name, added):
    config = BERT | ({"extra_special_tokens": ["<extra>"]} if added else {})
    folder = write_checkpoint(tmp_path, VOCAB, config=config, tokenizer_json=False)
    lines = [*VOCAB[:5], ODD_LINES[name], *VOCAB[5:]]
    (folder / "vocab.txt").write_bytes("\n".join(lines).encode() + b"\n")
    texts = [*TEXTS, "newtok", "new tok more", ODD_LINES[name].replace("\0", ""), "<extra>a"]
    theirs = auto_tokenizer.from_pretrained(folder)
    spec = read_checkpoint(folder)
    expected = theirs(texts)["input_ids"]
    assert Tokenizer(spec).encode_batch(texts).tolist() == expected
    ours = {token: index for index, token in enumerate(spec.vocab) if token}
    vocabulary = {token: index for token, index in theirs.get_vocab().items() if token and "\r" not in token}
    vocabulary.pop("<extra>", None)
    assert ours == vocabulary
    section = spec.write(tmp_path)
    assert Tokenizer(TokenizerSpec.read(tmp_path, section)).encode_batch(texts).tolist() == expected


@pytest.mark.parametrize("content", ["\n".join(VOCAB), "\r\n".join(VOCAB), "\ufeff" + "\n".join(VOCAB),
                                     "\n".join(VOCAB) + "\n\n \n"])  # fmt: skip
def test_ends_and_marks_of_vocab_txt(auto_tokenizer, write_checkpoint, tmp_path, content):
    folder = write_checkpoint(tmp_path, VOCAB, config=BERT, tokenizer_json=False)
    (folder / "vocab.txt").write_bytes(content.encode())
    theirs = auto_tokenizer.from_pretrained(folder)
    texts = [*TEXTS, "[PAD] \ufeff[PAD] a"]
    assert Tokenizer.from_folder(folder).encode_batch(texts).tolist() == theirs(texts)["input_ids"]


def test_a_line_that_comes_again_is_noted(write_checkpoint, tmp_path):
    folder = write_checkpoint(tmp_path, VOCAB, config=BERT, tokenizer_json=False)
    (folder / "vocab.txt").write_text("\n".join([*VOCAB, *["foo "] * 9]))
    notes = read_checkpoint(folder).notes
    assert len(notes) == 4
    assert notes[0] == f"vocab.txt: 'foo' is on the lines {VOCAB.index('foo') + 1} and {len(VOCAB) + 9}: the last " \
        "counts, as in AutoTokenizer"  # fmt: skip
    assert notes[-1] == "and 6 more lines that come again"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "morse"}, "kind 'morse'"),
        ({"settings": None}, "settings"),
        ({"files": []}, "files"),
        ({"files": ["nowhere.txt"]}, "nowhere.txt"),
        ({"settings.model": {"lowercase": "x"}}, "lowercase"),
        ({"settings.model": {"colour": 1}}, "unknown field 'colour'"),
        ({"settings.added_tokens": [{"content": "a"}]}, "added_tokens.0."),
        ({"settings.single": {"prefix": ["a"], "suffix": []}}, "prefix"),
        ({"settings.single": {"prefix": [-1], "suffix": []}}, "out of range"),
        ({"settings.pair": None}, "pair"),
    ],
)
def test_damaged_sections(write_checkpoint, tmp_path, change, message):
    section = read_checkpoint(write_checkpoint(tmp_path, VOCAB, config=BERT)).write(tmp_path)
    for key, value in change.items():
        target, _, name = key.rpartition(".")
        (section[target] if target else section)[name] = value
    with pytest.raises(ModelFolderError, match=message):
        TokenizerSpec.read(tmp_path, section)
