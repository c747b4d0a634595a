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
]
BERT = {"tokenizer_class": "BertTokenizer"}
BACKEND = {"tokenizer_class": "TokenizersBackend"}
NORMALIZER = {
    "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
    "lowercase": True,
}  # fmt: skip
NEW = {"content": "<new>", "lstrip": True, "rstrip": False, "normalized": True, "single_word": False, "special": False}
MASK = {"content": "[MASK]", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False}

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
    expected = theirs(TEXTS, TEXTS[::-1], return_token_type_ids=True)
    batch = ours.encode_batch(TEXTS, TEXTS[::-1])
    assert batch.tolist() == expected["input_ids"]
    assert batch.type_ids.tolist() == [value for row in expected["token_type_ids"] for value in row]
    assert ours.max_length == (None if theirs.model_max_length > 10**9 else theirs.model_max_length)


@pytest.mark.parametrize("name", ["case by default", "added id out of order", "other cls and sep"])
def test_disagreements_are_noted(write_checkpoint, tmp_path, name):
    spec = read_checkpoint(write_checkpoint(tmp_path, VOCAB, **AGREEING[name]))
    assert len(spec.notes) == 1
    assert "although" in spec.notes[0]


def test_agreeing_files_leave_no_note(demo_checkpoint, shared_data):
    for folder in (demo_checkpoint, shared_data / "tokenizers" / "bge-small-zh-v1.5"):
        assert read_checkpoint(folder).notes == []


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"tokenizer_json": False, "vocab_txt": False}, "neither tokenizer.json nor vocab.txt"),
        ({"config": {"tokenizer_class": "MPNetTokenizer"}}, "tokenizer_class 'MPNetTokenizer'"),
        ({"config": BERT, "vocab": VOCAB[2:]}, "unk_token"),
        ({"config": BERT, "vocab": [t for t in VOCAB if t != "[CLS]"]}, "cls_token"),
        ({"config": BERT | {"sep_token": None}}, "sep_token"),
        ({"config": BERT, "tokenizer_json": False, "vocab": [*VOCAB, "foo"]}, "'foo' is on lines"),
        ({"config": BERT, "tokenizer_json": False, "vocab": []}, "empty"),
        ({"config": BERT | {"do_lower_case": "yes"}}, "do_lower_case"),
        ({"config": BERT | {"model_max_length": -1}}, "model_max_length"),
        ({"config": BERT | {"truncation_side": "left"}}, "truncation_side"),
        ({"config": BERT | {"split_special_tokens": True}}, "split_special_tokens"),
        ({"config": BERT | {"added_tokens_decoder": []}}, "added_tokens_decoder"),
        ({"config": BERT | {"added_tokens_decoder": {"x": NEW}}}, "valid id"),
        ({"config": BERT | {"added_tokens_decoder": {"7": {"content": 3}}}}, "content"),
        ({"config": BERT | {"extra_special_tokens": 3}}, "extra_special_tokens"),
        ({"tokenizer": {"normalizer": {"type": "Lowercase"}}}, "normalizer.type 'Lowercase'"),
        ({"tokenizer": {"normalizer": NORMALIZER | {"lowercase": 1}}}, "lowercase"),
        ({"tokenizer": {"normalizer": None}}, "normalizer.type None"),
        ({"tokenizer": {"pre_tokenizer": {"type": "Whitespace"}}}, "pre_tokenizer.type 'Whitespace'"),
        ({"tokenizer": {"model": {"type": "BPE", "vocab": {}, "merges": []}}}, "model.type 'BPE'"),
        ({"tokenizer": {"model": {"vocab": {}, "merges": []}}}, "model.type 'BPE'"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": []}}}, "model.vocab"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"a": 99}}}}, "99"),
        ({"tokenizer": {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 0}}}}, "one id"),
        ({"tokenizer": {"model": 3}}, "model is not an object"),
        ({"tokenizer": {"post_processor": {"type": "ByteLevel"}}}, "post_processor.type 'ByteLevel'"),
        ({"tokenizer": {"post_processor": {"type": "BertProcessing"}}}, "cls and sep"),
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
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
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


def test_line_break_in_a_token_cannot_be_written(write_checkpoint, tmp_path):
    folder = write_checkpoint(tmp_path, [*VOCAB, "a\nb"], config=BERT, vocab_txt=False)
    with pytest.raises(ModelFolderError, match="line break"):
        read_checkpoint(folder).write(tmp_path)


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
