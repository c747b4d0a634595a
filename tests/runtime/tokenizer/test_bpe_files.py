"""What byte-level BPE is read from: files that are refused with what is wrong, the model folder, and the tables."""

import contextlib
import json
import struct

import pytest
import tokenizers
from tokenizers import Tokenizer as Reference

from bgert.errors import ModelFolderError
from bgert.tokenizer import Tokenizer
from bgert.tokenizer.bpe_file import pack, tokens
from bgert.tokenizer.checkpoint import read_checkpoint
from bgert.tokenizer.spec import TokenizerSpec
from bgert.tokenizer.split_patterns import PATTERNS

NORMALIZERS = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2 = next(iter(PATTERNS))


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


@pytest.fixture(scope="module")
def body(bpe):
    return json.loads(bpe.modernbert().to_str())


@pytest.fixture
def write(tmp_path):
    def write(body, **files):
        for name, content in {"tokenizer.json": body, **files}.items():
            (tmp_path / name).write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("normalizer", NORMALIZERS, r"normalizer is NFC, Lowercase: for BPE bgert has NFC or none"),
        ("normalizer", {"type": "Replace"}, r"normalizer is Replace"),
        ("pre_tokenizer", None, r"pre_tokenizer is null"),
        ("pre_tokenizer", {"type": "Whitespace"}, r"pre_tokenizer is Whitespace"),
        ("pre_tokenizer", LEVEL, r"cuts no words"),
        ("pre_tokenizer", sequence({"type": "Digits"}, LEVEL), r"pre_tokenizer is Digits, ByteLevel"),
        ("pre_tokenizer", sequence(SPLIT | {"pattern": {"Regex": r"\s+"}}, LEVEL), r"pattern '\\\\s\+', which bgert"),
        ("pre_tokenizer", sequence(SPLIT | {"pattern": {"String": " "}}, LEVEL), r"pattern \{'String': ' '\}"),
        ("pre_tokenizer", sequence(SPLIT | {"pattern": {"Regex": GPT2}, "behavior": "Removed"}, LEVEL), r"'Removed'"),
        (
            "pre_tokenizer",
            sequence(SPLIT | {"pattern": {"Regex": GPT2}}, LEVEL | {"add_prefix_space": True}),
            r"add_prefix_space or use_regex",
        ),
        ("post_processor", {"type": "Sequence", "processors": [{"type": "ByteLevel"}] * 2}, r"ByteLevel, ByteLevel"),
        ("post_processor", {"type": "Sequence", "processors": 5}, r"not a complete Sequence"),
        ("post_processor", {"type": "Other"}, r"post_processor.type 'Other'"),
    ],
    ids=str,
)
def test_a_pipeline_that_bgert_lacks_is_refused(body, write, section, value, message):
    with pytest.raises(ModelFolderError, match=message):
        Tokenizer(write(body | {section: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dropout": 0.1}, r"model\.dropout is 0\.1"),
        ({"continuing_subword_prefix": "##"}, r"continuing_subword_prefix is '##'"),
        ({"end_of_word_suffix": "</w>"}, r"end_of_word_suffix is '</w>'"),
        ({"ignore_merges": 1}, r"ignore_merges is 1"),
        ({"merges": {}}, r"not a list of merges"),
        ({"merges": ["a b c"]}, r"merge 0 is 'a b c'"),
        ({"merges": [["a"]]}, r"merge 0 is \['a'\]"),
        ({"merges": [["q", "nothing"]]}, r"merge 0 needs 'nothing'"),
        ({"merges": [["q", "$"]]}, r"merge 0 needs 'q\$'"),
        ({"vocab": {"a": 0, "b": 1}, "merges": []}, r"no token for the byte 0"),
        ({"vocab": ["a"]}, r"model\.vocab is not an object"),
    ],
    ids=str,
)
def test_a_model_that_bgert_lacks_is_refused(body, write, change, message):
    with pytest.raises(ModelFolderError, match=message):
        Tokenizer(write(body | {"model": body["model"] | change}))


def test_a_missing_byte_is_not_passed_over(body, write):
    """`tokenizers` drops its text silently."""
    vocab = {token: index for token, index in body["model"]["vocab"].items() if "Ń" not in token}
    merges = [pair for pair in body["model"]["merges"] if "Ń" not in "".join(pair)]
    folder = write(body | {"model": body["model"] | {"vocab": vocab, "merges": merges}})
    assert Reference.from_file(str(folder / "tokenizer.json")).encode("\u00ad").tokens[1:-1] == ["Â"]
    with pytest.raises(ModelFolderError, match="no token for the byte 173"):
        Tokenizer(folder)


@pytest.mark.parametrize("missing", ["merges.txt", "vocab.json"])
def test_half_of_the_old_files(bpe, tmp_path, missing):
    folder = bpe.write(tmp_path / "model", bpe.roberta(), model_type="roberta", legacy=True)
    (folder / missing).unlink()
    with pytest.raises(ModelFolderError, match=missing):
        Tokenizer(folder)


def test_lines_of_merges_that_are_none(bpe, tmp_path):
    folder = bpe.write(tmp_path / "model", bpe.roberta(), model_type="roberta", legacy=True)
    with (folder / "merges.txt").open("a") as file:
        file.write("\na\n")
    with pytest.raises(ModelFolderError, match=r"merges\.txt: merge \d+ is ''"):
        Tokenizer(folder)


def test_a_merge_that_comes_again_counts_where_it_stands_last(body, write):
    merges = body["model"]["merges"]
    folder = write(body | {"model": body["model"] | {"merges": [*merges, *merges[40:80], *merges[:10]]}})
    ours, theirs = Tokenizer(folder), Reference.from_file(str(folder / "tokenizer.json"))
    texts = ["the tokenizer of encoding", "unbelievable naïve 日本語", "they've 12345 HTTPServer"]
    assert ours.encode_batch(texts).tolist() == [encoding.ids for encoding in theirs.encode_batch(texts)]


def test_roberta_says_where_tokenizer_json_differs(bpe, write, body):
    vocab = body["model"]["vocab"] | {"<s>": len(body["model"]["vocab"]), "</s>": len(body["model"]["vocab"]) + 1}
    other = body | {"model": body["model"] | {"vocab": vocab, "ignore_merges": True}}
    spec = read_checkpoint(write(other, **{"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizer"}}))
    notes = " / ".join(spec.notes)
    assert "nfc is False as RobertaTokenizer has it, although tokenizer.json says True" in notes
    assert "ignore_merges is False" in notes
    assert "post_processor differs" in notes


def test_written_and_read_again_it_is_the_same(bpe, tmp_path):
    for name, tokenizer in {"roberta": bpe.roberta(prefix=True), "llama3": bpe.llama3()}.items():
        spec = read_checkpoint(bpe.write(tmp_path / name, tokenizer))
        section = spec.write(tmp_path)
        assert section["files"] == ["bpe.bin"]
        assert "data" not in section["settings"]["model"]
        again = TokenizerSpec.read(tmp_path, json.loads(json.dumps(section)), spec.max_length)
        assert (again.model, again.vocab, again.added_tokens) == (spec.model, spec.vocab, spec.added_tokens)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "gpt9"}, "split pattern 'gpt9' is unknown"),
        ({"pattern": 3}, "pattern is 3"),
        ({"nfc": "yes"}, "nfc is 'yes'"),
        ({"data": "x"}, "data is 'x'"),
        ({"more": True}, "unknown field 'more'"),
    ],
    ids=str,
)
def test_settings_of_a_model_folder_that_are_none(bpe, tmp_path, change, message):
    section = read_checkpoint(bpe.write(tmp_path / "model", bpe.roberta())).write(tmp_path)
    section["settings"]["model"] |= change
    with pytest.raises(ModelFolderError, match=message):
        Tokenizer(TokenizerSpec.read(tmp_path, section))


def test_damaged_files_are_refused(bpe, tmp_path, rng):
    spec = read_checkpoint(bpe.write(tmp_path / "model", bpe.roberta(size=400)))
    section = spec.write(tmp_path)
    good = (tmp_path / "bpe.bin").read_bytes()
    vocab = tokens(good)
    merge = struct.unpack_from("<3I", good, 28)
    for data, message in (
        (b"", "not a BPE file"),
        (good[:20], "not a BPE file"),
        (good[:-1], "does not hold the tokens"),
        (good[:8] + b"\x02" + good[9:], "version 2"),
        (pack([*vocab, vocab[5]], []), "is there twice"),
        (pack(vocab, [merge, merge]), "merge 1 is there twice"),
        (pack(vocab, [(merge[0], merge[1], merge[0])]), "into another"),
        (pack(vocab, [(merge[0], merge[1], len(vocab))]), "does not have"),
    ):
        (tmp_path / "bpe.bin").write_bytes(data)
        with pytest.raises(ModelFolderError, match=message):
            Tokenizer(TokenizerSpec.read(tmp_path, section))
    for _ in range(300):
        at = rng.randrange(len(good))
        (tmp_path / "bpe.bin").write_bytes(good[:at] + bytes([rng.randrange(256)]) + good[at + 1 :])
        with contextlib.suppress(ModelFolderError):
            Tokenizer(TokenizerSpec.read(tmp_path, section)).encode("the tokenizer")
    with pytest.raises(ValueError, match="token 1 holds a NUL"):
        pack(["a", "b\0"], [])
    with pytest.raises(ValueError, match="token 1 holds a lone surrogate"):
        pack(["a", "\ud800"], [])


def test_tables_are_what_the_probe_finds(tool):
    module = tool("probe_byte_level_tables")
    if not tokenizers.__version__.startswith(module.PROBED_VERSION + "."):
        pytest.skip(f"the tables are pinned to tokenizers {module.PROBED_VERSION}, this is {tokenizers.__version__}")
    assert module.OUTPUT.read_text(encoding="utf-8") == module.render()
    assert module.OUTPUT.stat().st_size < 100_000
