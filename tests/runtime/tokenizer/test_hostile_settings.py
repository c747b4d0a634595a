"""Tokenizer settings by somebody who wants to do harm, in folders whose checksums all fit: refused when the folder is
loaded, in one line."""

import hashlib
import json
import math
import shutil
import time

import pytest

from bgert import Encoder, Reranker, _native
from bgert.errors import ModelFolderError
from bgert.model_folder import MANIFEST_NAME
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.spec import MOST_TOKENS, TokenizerSpec
from bgert.tokenizer.unigram_file import pack

TOKEN = {
    "content": "[NEW]",
    "id": 5,
    "special": False,
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
}


@pytest.fixture(scope="session")
def honest(write_model, sentence_transformers_files, tmp_path_factory):
    from bgert_export import export

    root = tmp_path_factory.mktemp("hostile")
    export(write_model(root / "checkpoint", files=sentence_transformers_files()), root / "model", verify=False)
    return root / "model"


@pytest.fixture
def spoiled(honest, tmp_path):
    """A folder whose settings, or other parts of the manifest, `change` spoils."""

    def make(change, files=None):
        folder = tmp_path / "model"
        shutil.copytree(honest, folder)
        manifest = json.loads((folder / MANIFEST_NAME).read_text())
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
            entry = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            manifest["tokenizer_files"] = [entry]
        change(manifest["tokenizer"]["settings"], manifest)
        (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
        return folder

    return make


def refused(folder, match):
    for load in (Encoder, Tokenizer.from_folder):
        with pytest.raises(ModelFolderError, match=match) as caught:
            load(folder)
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) < 1000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda s, _: s["single"].update(middle=[2] * 40, prefix_type=1), "tokens between two texts"),
        (lambda s, _: s["single"].update(prefix=[10**6]), "the id 1000000, which the tokenizer does not"),
        (lambda s, _: s["pair"].update(middle=[2**31 - 1]), "which the tokenizer does not"),
        (lambda s, _: s["pair"].update(suffix=[-1]), "out of range"),
        (lambda s, _: s["pair"].update(suffix=[2**31]), "out of range"),
        (lambda s, _: s["single"].update(first_type=-1), "out of range"),
        (lambda s, _: s["single"].update(first_type=2), "type_vocab_size is 2"),
        (lambda s, _: s["single"].update(first_type=2**31 - 1), "type_vocab_size is 2"),
        (lambda s, m: (s["single"].update(suffix=[3] * 600), m.update(architecture={}, max_tokens=999)), "no field"),
        (lambda s, _: s["single"].update(suffix=[3] * 100), "101 special tokens leave no room"),
        (lambda _, m: m.update(max_tokens=2), "2 special tokens leave no room"),
        (lambda _, m: m.update(max_tokens=73), "max_tokens is 73, and the model has positions for 72"),
        (lambda _, m: m.update(max_tokens=2**70), "out of range"),
        (lambda s, _: s["model"].update(max_input_chars_per_word=10**9), "max_input_chars_per_word"),
        (lambda s, _: s["model"].update(max_input_chars_per_word=-1), "out of range"),
        (lambda s, _: s["model"].update(unk_token="no\nsuch " * 1000), "unknown token"),
        (lambda s, _: s["model"].update(unk_token=""), "unknown token"),
        (lambda s, _: s["model"].update(unk_token="\ud800"), "lone surrogate"),
        (lambda s, _: s["model"].update(continuing_subword_prefix="\udfff"), "lone surrogate"),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"content": ""}), "is empty"),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"content": "\ud800"}), "lone surrogate"),
        (
            lambda s, _: s["added_tokens"].append(TOKEN | {"content": "\x01", "normalized": True}),
            "normalises to nothing",
        ),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"content": "a" * 1001}), "is too long"),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"id": 10**6}), "out of range"),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"id": -1}), "out of range"),
        (lambda s, _: s["added_tokens"].append(TOKEN | {"id": 2**31 - 1}), "reach row 2147483647"),
        (lambda s, _: s["added_tokens"].extend([TOKEN, TOKEN | {"id": 6}]), "is there twice"),
        (lambda _, m: m["architecture"].update(vocab_size=20), "vocab_size is 20"),
    ],
)
def test_settings_are_refused_at_load(spoiled, change, match):
    refused(spoiled(change), match if "out of range" not in match else "out of range|reach row 1000000")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"suffix": [3] * 100}, "special tokens leave no room"),
        ({"middle_type": 2}, "type_vocab_size is 2"),
        ({"second_type": 2**31 - 1}, "type_vocab_size is 2"),
        ({"middle": [10**6]}, "which the tokenizer does not"),
    ],
)
def test_templates_of_a_reranker_are_refused_at_load(make_reranker_checkpoint, tmp_path, change, match):
    from bgert_export import export

    export(make_reranker_checkpoint(1), tmp_path / "model", verify=False)
    path = tmp_path / "model" / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    manifest["tokenizer"]["settings"]["pair"].update(change)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelFolderError, match=match):
        Reranker(tmp_path / "model")


def template(ids, type_id=0):
    """The post-processor of a tokenizer.json with these ids before a text."""
    first = {"SpecialToken": {"id": "[CLS]", "type_id": type_id}}
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": texts,
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": ids, "tokens": ["[CLS]"]}},
    }


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("post_processor", template(["a"])),
        ("post_processor", template([1.5])),
        ("post_processor", template([True])),
        ("post_processor", template([[1]])),
        ("post_processor", template([-1])),
        ("post_processor", template([3])),
        ("post_processor", template([2**40])),
        ("post_processor", template([0], "x")),
        ("post_processor", template([0], None)),
        ("post_processor", template([0], -1)),
        ("post_processor", template([0], 2**31)),
        ("post_processor", {"type": "BertProcessing", "cls": ["a", math.inf], "sep": ["a", 0]}),
        ("max_input_chars_per_word", 10**7),
        ("vocab", {"[UNK]": 0, "a": 1, "\ud800": 2}),
        ("vocab", {"[UNK]": 0, "a": 10**12}),
        ("unk_token", "\ud800"),
    ],
)
def test_a_checkpoint_s_tokenizer_file_is_refused(tmp_path, section, value):
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "a": 1, "b": 2},
    }
    whole = {
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template([0]),
        "model": model,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    assert Tokenizer.from_folder(tmp_path).encode_batch(["b a"]).tolist() == [[0, 2, 1]]
    (whole if section == "post_processor" else model)[section] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(ModelFolderError) as caught:
        Tokenizer.from_folder(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("at", "value"),
    [(12, 7), (12, 2**32 - 1), (16, 2**64 - 1), (16, MOST_TOKENS + 1), (24, 2**63), (32, 2**64 - 1), (40, 2**64 - 1)],
)
def test_numbers_of_a_unigram_file_are_refused(tmp_path, at, value):
    """Header and first score; all ones are NaN there."""
    data = bytearray(pack(["<unk>", "a"], [0.0, -1.0], 0, b""))
    size = 4 if at == 12 else 8
    data[at : at + size] = value.to_bytes(size, "little")
    (tmp_path / "unigram.bin").write_bytes(data)
    empty = {"prefix": [], "suffix": []}
    section = {
        "kind": "unigram",
        "files": ["unigram.bin"],
        "settings": {"model": {}, "added_tokens": [], "single": empty, "pair": empty},
    }
    with pytest.raises(ModelFolderError) as caught:
        Tokenizer(TokenizerSpec.read(tmp_path, section))
    assert "\n" not in str(caught.value)


def test_a_vocabulary_that_no_model_has_is_refused(spoiled):
    refused(spoiled(lambda *_: None, {"vocab.txt": b"\n" * (MOST_TOKENS + 1)}), f"more than {MOST_TOKENS} lines")


def test_the_core_holds_its_invariants_whatever_python_did(honest):
    """What Python hands over is checked again where memory depends on it."""
    names = ("prefix_type", "first_type", "middle_type", "second_type", "suffix_type")
    types = dict.fromkeys(names, 0)
    options = {
        "unk_token": "u",
        "continuing_subword_prefix": "##",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    }
    model = _native.WordPieceModel(["u", "a"], **options, max_input_chars_per_word=100, added_tokens=[])
    good = _native.Template(prefix=[0], middle=[], suffix=[1], **types)
    _native.BatchEncoder(model, good, good)
    for bad in (
        {"prefix": [2], "middle": [], "suffix": []},
        {"prefix": [], "middle": [], "suffix": [-1]},
        {"prefix": [0] * 513, "middle": [], "suffix": []},
        {"prefix": [], "middle": [], "suffix": [], "first_type": -1},
    ):
        with pytest.raises(ValueError, match="template of pairs"):
            _native.BatchEncoder(model, good, _native.Template(**(types | bad)))
    with pytest.raises(ValueError, match="between two texts"):
        _native.BatchEncoder(model, _native.Template(prefix=[], middle=[0], suffix=[], **types), good)
    with pytest.raises(ValueError, match="max_input_chars_per_word"):
        _native.WordPieceModel(["u"], **options, max_input_chars_per_word=2**40, added_tokens=[])
    for token_id in (-1, 2, 2**31 - 1):
        token = _native.AddedToken(**({k: v for k, v in TOKEN.items() if k != "id"} | {"token_id": token_id}))
        with pytest.raises(ValueError, match="out of range"):
            _native.WordPieceModel(["u"], **options, max_input_chars_per_word=100, added_tokens=[token])
        with pytest.raises(ValueError, match="out of range"):
            _native.UnigramModel(pack(["<unk>"], [0.0], 0, b""), added_tokens=[token])
    with pytest.raises(ValueError, match="too long"):
        _native.UnigramModel(pack(["<unk>", "a" * 1001], [0.0, 0.0], 0, b""), added_tokens=[])


@pytest.mark.parametrize("strip", [{"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}])
def test_time_is_linear_in_a_text_of_whitespace_tokens(spoiled, strip):
    folder = spoiled(lambda s, _: s["added_tokens"].append(TOKEN | {"content": " "} | strip))
    tokenizer = Tokenizer.from_folder(folder)

    def seconds(size):
        start = time.perf_counter()
        tokenizer.encode_batch([" " * size], truncation="do_not_truncate")
        return time.perf_counter() - start

    assert seconds(400_000) < 10 * min(seconds(100_000) for _ in range(3)) + 0.1


def test_time_is_linear_in_a_text_of_the_longest_words(spoiled, honest):
    """The longest words that settings may allow, and a token that almost fits at every place of them."""
    lines = (honest / "vocab.txt").read_bytes()
    long = b"a" * 990 + b"b\n##" + b"a" * 990 + b"b\n"
    folder = spoiled(
        lambda s, m: (s["model"].update(max_input_chars_per_word=1000), m["architecture"].update(vocab_size=10**4)),
        {"vocab.txt": lines + long},
    )
    start = time.perf_counter()
    Tokenizer.from_folder(folder).encode_batch([("a" * 1000 + " ") * 1000])
    assert time.perf_counter() - start < 20
