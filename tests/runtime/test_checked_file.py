"""Files that are none, or that somebody made to stop or to fill whoever reads them."""

import os
import sys
from pathlib import Path

import pytest

from bgert.checked_file import MAX_DEPTH, decode_json, open_regular, read_bytes, read_json
from bgert.errors import ModelFolderError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def make_fifo(path):
    os.mkfifo(path)


def link_to_fifo(path):
    os.mkfifo(path.with_suffix(".pipe"))
    path.symlink_to(path.with_suffix(".pipe"))


def make_loop(path):
    path.symlink_to(path)


def make_sparse(path):
    path.touch()
    os.truncate(path, 1 << 40)


UNREADABLE = {
    "a FIFO": (make_fifo, "not a regular file"),
    "a link to a FIFO": (link_to_fifo,
                         "not a regular file"),
    "a link to /dev/zero": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "a link to /dev/null": (lambda path: path.symlink_to("/dev/null"), "not a regular file"),
    "a link to itself": (make_loop, "cannot read"),
    "a folder": (Path.mkdir, "not a regular file"),
    "a hole of a terabyte": (make_sparse, "1099511627776 bytes"),
    "a Git LFS pointer": (lambda path: path.write_bytes(LFS), "is a Git LFS pointer"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_file_to_read(tmp_path, name):
    make, message = UNREADABLE[name]
    make(tmp_path / "x.json")
    for read in (read_bytes, read_json):
        with pytest.raises(ModelFolderError, match=message):
            read(tmp_path / "x.json", ModelFolderError)


def test_links_to_files_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"[1]")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", ModelFolderError) == b"[1]"
    assert read_json(tmp_path / "b", ModelFolderError) == [1]
    with open_regular(tmp_path / "b", ModelFolderError) as file:
        assert file.read() == b"[1]"


def test_an_absent_file_is_the_callers_to_judge(tmp_path):
    for read in (read_bytes, read_json, open_regular):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "x", ModelFolderError)
    (tmp_path / "dangling").symlink_to("x")
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "dangling", ModelFolderError)


def test_a_name_with_a_nul():
    with pytest.raises(ModelFolderError, match="cannot read"):
        read_bytes(Path("a\0b"), ModelFolderError)


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 900, 5_000, 1_000_000])
@pytest.mark.parametrize(("before", "after"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_json(levels, before, after):
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        decode_json((before * levels + "1" + after * levels).encode())


def test_json_that_is_wide_or_has_brackets_in_texts():
    assert decode_json(b"[" + b"[]," * 10_000 + b"{}]") == [[]] * 10_000 + [{}]
    assert decode_json(b'["' + b"[{" * 10_000 + b'"]') == ["[{" * 10_000]
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert repr(decode_json(b"[" + deepest[1:-1] + b"]")).count("[") == MAX_DEPTH


@pytest.mark.parametrize(
    "name",
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json",
     "vocab.txt", "sentencepiece.bpe.model"],
)  # fmt: skip
@pytest.mark.parametrize("kind", UNREADABLE)
def test_every_file_of_a_tokenizer(make_checkpoint, name, kind):
    from bgert.tokenizer import Tokenizer

    folder = make_checkpoint()
    if name == "sentencepiece.bpe.model":
        (folder / "vocab.txt").unlink()
        (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}')
    (folder / name).unlink(missing_ok=True)
    make, message = UNREADABLE[kind]
    make(folder / name)
    if (kind, name) in (("a link to itself", "vocab.txt"), ("a link to itself", "sentencepiece.bpe.model")):
        message = "neither tokenizer.json nor"  # as if it were not there
    with pytest.raises(ModelFolderError, match=message):
        Tokenizer.from_folder(folder)
