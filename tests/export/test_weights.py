"""Reading of weights in every form they come in."""

import json
import pickle
import struct
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bgert_export.errors import CheckpointError, ExtraNotInstalledError, UnsupportedCheckpointError
from bgert_export.weights import open_weights, read_whole


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(5)
    return {
        "matrix": torch.randn(7, 5, generator=generator),
        "vector": torch.randn(4, generator=generator) * 1e-3,
        "scalar": torch.tensor(2.5),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_safetensors(tmp_path, tensors, dtype):
    tensors = {name: value.to(dtype) for name, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    weights = open_weights(tmp_path)
    assert weights.shapes["matrix"] == (7, 5)
    for name, value in tensors.items():
        found = read_whole(weights, name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(np.ravel(found), value.float().numpy().ravel())


def test_half_precision_extremes(tmp_path):
    values = torch.tensor([0.0, -0.0, 1.0, 65504.0, 6e-8, float("inf"), float("-inf")])
    for dtype in (torch.float16, torch.bfloat16):
        save_file({"a": values.to(dtype)}, tmp_path / "model.safetensors")
        np.testing.assert_array_equal(read_whole(open_weights(tmp_path), "a"), values.to(dtype).float().numpy())


def test_large_weights_come_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("bgert_export.weights._BLOCK_BYTES", 4 * 5 * 3)
    value = torch.arange(50, dtype=torch.float16).reshape(10, 5)
    save_file({"a": value}, tmp_path / "model.safetensors")
    blocks = list(open_weights(tmp_path).blocks("a"))
    assert [len(block) for block in blocks] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), value.float().numpy())


def test_shards(tmp_path, tensors):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save_file({"matrix": tensors["matrix"]}, tmp_path / names[0])
    save_file({"vector": tensors["vector"]}, tmp_path / names[1])
    index = {"weight_map": {"matrix": names[0], "vector": names[1]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = open_weights(tmp_path)
    assert [path.name for path in weights.files] == names
    np.testing.assert_array_equal(read_whole(weights, "vector"), tensors["vector"].numpy())
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match="has no model-00002-of-00002"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "no weight_map"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "refused"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "refused"),
        ('{"weight_map": {"lost": "one.safetensors"}}', "has no weight lost"),
        ('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}', "the weight a is in"),
    ],
)
def test_damaged_index(tmp_path, index, message):
    for name in ("one.safetensors", "two.safetensors"):
        save_file({"a": torch.zeros(2), **({"b": torch.zeros(2)} if name[0] == "t" else {})}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=message):
        open_weights(tmp_path)


def header(entries, data=b"\0" * 8):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its header does not fit"),
        (struct.pack("<Q", 1 << 40), "its header does not fit"),
        (header(b"not json"), "not JSON"),
        (header([]), "not an object"),
        (header({"a": {"dtype": "F32", "shape": [2]}}), "the entry of a"),
        (header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}), "the entry of a"),
        (header({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}), "the place of a"),
        (header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}), "the place of a"),
        (header({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}), "the size of a"),
        (header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}), "truncated"),
    ],
)
def test_damaged_safetensors(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_weights(tmp_path)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    weights = open_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="ends inside the weight a"):
        read_whole(weights, "a")


def test_whole_numbers_are_no_weights(tmp_path):
    save_file({"a": torch.zeros(3, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedCheckpointError, match="the weight a has type I8"):
        read_whole(open_weights(tmp_path), "a")


@pytest.mark.parametrize("new_format", [True, False])
def test_pytorch_pickle(tmp_path, tensors, new_format):
    tensors["half"] = tensors["matrix"].bfloat16()
    tensors["ids"] = torch.arange(3)
    torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=new_format)
    weights = open_weights(tmp_path)
    for name in ("matrix", "vector", "half"):
        np.testing.assert_array_equal(read_whole(weights, name), tensors[name].float().numpy())
    with pytest.raises(UnsupportedCheckpointError, match="the weight ids has type"):
        read_whole(weights, "ids")


class Attack:
    def __reduce__(self):
        return (sys.exit, (77,))


@pytest.mark.parametrize("content", [pickle.dumps(Attack()), b"garbage", b"", pickle.dumps([1, 2])])
def test_pickles_run_no_code(tmp_path, content):
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_weights(tmp_path)


def test_pickle_without_torch(tmp_path, monkeypatch):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ExtraNotInstalledError, match="install the extra `verify`"):
        open_weights(tmp_path)


def test_safetensors_need_no_torch(tmp_path, tensors, monkeypatch):
    save_file(tensors, tmp_path / "model.safetensors")
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert open_weights(tmp_path).files[0].name == "model.safetensors"


def test_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match="has no weights"):
        open_weights(tmp_path)
