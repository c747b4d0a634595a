import errno
import json

import numpy as np
import pytest

from bgert.errors import InvalidOptionError, OutputFileError
from bgert.jobs.atomic_file import atomic_file
from bgert.jobs.formats import JsonLinesFormat, NpyFormat


def written(path, form, blocks):
    with atomic_file(path) as file:
        return form.write(file, blocks)


def test_the_file_has_the_rights_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_file(tmp_path / "a.npy"):
        pass
    assert (tmp_path / "a.npy").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_npy_has_the_rows_of_all_blocks(tmp_path):
    path = tmp_path / "a.npy"
    blocks = [np.full((n, 3), n, np.float16) for n in (2, 1, 5)]
    assert written(path, NpyFormat(3, np.float16), ((block, []) for block in blocks)) == 8
    np.testing.assert_array_equal(np.load(path), np.concatenate(blocks))


def test_no_blocks_make_an_empty_array(tmp_path):
    assert written(tmp_path / "a.npy", NpyFormat(3, np.float32), []) == 0
    assert np.load(tmp_path / "a.npy").shape == (0, 3)


def test_numbers_that_are_no_lists(tmp_path):
    written(tmp_path / "a.npy", NpyFormat(None, np.float32), [(np.array([1, 2], np.float32), [])])
    assert np.load(tmp_path / "a.npy").tolist() == [1, 2]
    written(tmp_path / "a.jsonl", JsonLinesFormat("score"), [(np.array([1.5], np.float32), [[{"id": 3}]])])
    assert json.loads((tmp_path / "a.jsonl").read_text()) == {"id": 3, "score": 1.5}


def test_jsonl_out(tmp_path):
    written(tmp_path / "a.jsonl", JsonLinesFormat(None), [(np.array([[1.5, 2]], np.float32), [])])
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [[1.5, 2.0]]


@pytest.mark.parametrize("form", [NpyFormat(3, np.int8), JsonLinesFormat(None)])
def test_joined_parts_have_the_bytes_of_one_file(tmp_path, form):
    blocks = [(np.full((n, 3), n, np.int8), []) for n in (2, 0, 5)]
    written(tmp_path / "whole", form, blocks)
    for number, block in enumerate(blocks):
        written(tmp_path / f"part-{number}", form, [block])
    with atomic_file(tmp_path / "joined") as file:
        assert form.join(file, sorted(tmp_path.glob("part-*"))) == 7
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_failed_run_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"old")

    def blocks():
        yield np.zeros((1, 2), np.float32), []
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        written(path, NpyFormat(2, np.float32), blocks())
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npy"]


def test_the_output_folder_must_exist(tmp_path):
    with pytest.raises(InvalidOptionError, match="cannot write"), atomic_file(tmp_path / "none" / "a.npy"):
        pass


def test_a_full_disk_names_the_file_and_an_input_that_fails_does_not(tmp_path):
    with pytest.raises(OutputFileError, match=r"cannot write .*a\.npy: No space left"), atomic_file(tmp_path / "a.npy"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a.npy"):
        (tmp_path / "input").read_bytes()
    assert list(tmp_path.iterdir()) == []
