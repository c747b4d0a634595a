import io

import pytest

from bgert.errors import BgertError, InvalidOptionError, InvalidTextError
from bgert.jobs.text_files import read_texts


def test_txt_is_a_text_a_line_and_empty_lines_count(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\r\n\nthree\u2028same line\nlast".encode())
    assert list(read_texts(str(path))) == ["one", "", "three\u2028same line", "last"]


def test_jsonl_takes_a_field(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x\\ny"}\n\n{"body": "z"}\n')
    assert list(read_texts(str(path), "body")) == ["x\ny", "z"]


@pytest.mark.parametrize("line", ["{", "[]", '{"text": 3}', "{}"])
def test_broken_jsonl_names_the_line(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(InvalidTextError, match=r"a.jsonl:2"):
        list(read_texts(str(path)))


def test_stdin(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO("grüß\nGott\n".encode()), encoding="ascii")
    monkeypatch.setattr("sys.stdin", stdin)
    assert list(read_texts("-")) == ["grüß", "Gott"]


def test_unreadable_inputs(tmp_path):
    with pytest.raises(InvalidOptionError, match=r"\.txt or \.jsonl"):
        read_texts("a.csv")
    with pytest.raises(BgertError, match="no such file"):
        list(read_texts(str(tmp_path / "none.txt")))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(BgertError, match="is a folder"):
        list(read_texts(str(tmp_path / "folder.txt")))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
@pytest.mark.parametrize("line", [1, 2, 5000])
def test_what_is_not_utf_8_is_named_by_its_line(tmp_path, name, line):
    good = b'{"text": "good"}\n'
    (tmp_path / name).write_bytes(good * (line - 1) + b"ab\xff\xfe\n" + good)
    with pytest.raises(BgertError, match=rf"{name}:{line}: not UTF-8: invalid start byte at byte 3"):
        list(read_texts(str(tmp_path / name)))


def test_a_lone_surrogate_is_named_by_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n\n{"text": "x\\ud800"}\n')
    with pytest.raises(InvalidTextError, match=r"a.jsonl:3: a lone surrogate at position 1 of field 'text'"):
        list(read_texts(str(tmp_path / "a.jsonl")))


def test_json_of_any_depth_is_one_line(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + "[" * 100_000 + "\n")
    with pytest.raises(InvalidTextError, match=r"a.jsonl:2: not JSON"):
        list(read_texts(str(tmp_path / "a.jsonl")))


def test_a_mark_of_the_byte_order_is_no_text(tmp_path, monkeypatch):
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.jsonl").write_bytes(mark + b'{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "a.txt").write_bytes(mark + b"one\ntwo\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(mark + b"one\ntwo\n")))
    for name in (str(tmp_path / "a.jsonl"), str(tmp_path / "a.txt"), "-"):
        assert list(read_texts(name)) == ["one", "two"]


def test_endings_in_capitals(tmp_path):
    (tmp_path / "A.TXT").write_text("one\n")
    (tmp_path / "A.JsonL").write_text('{"text": "one"}\n')
    assert list(read_texts(str(tmp_path / "A.TXT"))) == list(read_texts(str(tmp_path / "A.JsonL"))) == ["one"]
