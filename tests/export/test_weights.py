"""Reading of weights in every form they come in."""

import io
import json
import os
import pickle
import struct
import sys
import warnings
import zipfile

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
    monkeypatch.setattr("bgert_export.safetensors_file.BLOCK_BYTES", 4 * 5 * 3)
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
        ("{", "not valid JSON"),
        ("[]", "no weight_map"),
        ('{"weight_map": {}}', "no weight_map"),
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


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


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
        (header({}), "goes on after its last weight"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "goes on after its last weight"),
        (header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}), "the place of a leaves a gap"),
        (
            header({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}),
            "the place of b overlaps",
        ),
        (
            header(
                {
                    "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                    "b": {"dtype": "F16", "shape": [3], "data_offsets": [2, 8]},
                }
            ),
            "the place of b overlaps",
        ),
        (header({"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 8]}}), "the size of a"),
        (header({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 8]}}), "the size of a"),
        (header({"a": {"dtype": "F32", "shape": [2, 2**62, 2**62], "data_offsets": [0, 8]}}), "the size of a"),
        (header(b'{"a":' * 5000 + b"1" + b"}" * 5000), "not JSON"),
        (header(b'{"a": %s}' % (b"9" * 5000)), "not JSON"),
        (LFS, "is a Git LFS pointer"),
    ],
)
def test_damaged_safetensors(tmp_path, content, message):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_weights(tmp_path)


ODD = ["Infinity", "-Infinity", "NaN", "1e999", "2.0", "true", "null", '"2"', "[2]", "{}", "1" + "0" * 30]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("where", ['"shape": [%s], "data_offsets": [0, 8]', '"shape": [2], "data_offsets": [%s, 8]',
                                   '"shape": [2], "data_offsets": [0, %s]', '"shape": %s, "data_offsets": [0, 8]',
                                   '"shape": [2], "data_offsets": %s'])  # fmt: skip
def test_numbers_of_a_header_that_are_none(tmp_path, odd, where):
    if (odd, where[:11]) == ("[2]", '"shape": %s'):
        odd = "[[2]]"
    content = header(('{"a": {"dtype": "F32", %s}}' % (where % odd)).encode())
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_whole(open_weights(tmp_path), "a")


@pytest.mark.parametrize("entry", ["3", "null", "[]", '"F32"', '{"dtype": 3, "shape": [2], "data_offsets": [0, 8]}'])
def test_entries_of_a_header_that_are_none(tmp_path, entry):
    (tmp_path / "model.safetensors").write_bytes(header(f'{{"a": {entry}}}'.encode()))
    with pytest.raises(CheckpointError, match="the entry of a"):
        open_weights(tmp_path)


def test_every_type_of_safetensors_is_measured(tmp_path):
    from bgert_export.safetensors_file import _BITS

    kinds = [value for value in vars(torch).values() if isinstance(value, torch.dtype)]
    written = set()
    for kind in kinds:
        try:
            save_file({"a": torch.zeros(4, dtype=torch.uint8).view(torch.uint8).repeat(4).view(kind)}, tmp_path / "x")
        except Exception:
            continue
        length = struct.unpack("<Q", (tmp_path / "x").read_bytes()[:8])[0]
        written.add(json.loads((tmp_path / "x").read_bytes()[8 : 8 + length])["a"]["dtype"])
        (tmp_path / "x").rename(tmp_path / "model.safetensors")
        assert "a" in open_weights(tmp_path).shapes
    assert {"F32", "BF16", "F8_E4M3", "I64", "BOOL"} <= written <= set(_BITS)


def test_a_file_that_shrinks_after_it_was_opened(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    weights = open_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="ends inside the weight a"):
        read_whole(weights, "a")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.int8, "I8"), (torch.int64, "I64"), (torch.bool, "BOOL"), (torch.float8_e4m3fn, "F8_E4M3"),
     (torch.float8_e5m2, "F8_E5M2"), (torch.complex64, "C64")],
)  # fmt: skip
def test_types_that_are_not_read(tmp_path, dtype, name):
    value = torch.zeros(3).to(dtype)
    save_file({"a": value}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedCheckpointError, match=f"a has type {name}: bgert reads float32"):
        read_whole(open_weights(tmp_path), "a")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": value}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsupportedCheckpointError, match=f"a has type {str(dtype)[6:]}: bgert reads float32"):
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


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                  "pytorch_model.bin.index.json"])  # fmt: skip
def test_git_lfs_pointers(tmp_path, name):
    (tmp_path / name).write_bytes(LFS)
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        open_weights(tmp_path)


@pytest.mark.parametrize("stem", ["model.safetensors", "pytorch_model.bin"])
def test_a_part_that_is_a_git_lfs_pointer(tmp_path, stem):
    (tmp_path / "part").write_bytes(LFS)
    (tmp_path / f"{stem}.index.json").write_text('{"weight_map": {"a": "part"}}')
    with pytest.raises(CheckpointError, match="part is a Git LFS pointer"):
        open_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                  "pytorch_model.bin.index.json"])  # fmt: skip
@pytest.mark.parametrize("kind", ["fifo", "zero", "folder", "nowhere"])
def test_weights_that_are_no_file(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "zero" else "nowhere")
    with pytest.raises(CheckpointError, match="not there" if kind == "nowhere" else "not a regular file"):
        open_weights(tmp_path)


def test_parts_of_a_pickle(tmp_path, tensors):
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save({"matrix": tensors["matrix"]}, tmp_path / names[0])
    torch.save({"vector": tensors["vector"]}, tmp_path / names[1])
    index = {"weight_map": {"matrix": names[0], "vector": names[1]}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    weights = open_weights(tmp_path)
    assert [path.name for path in weights.files] == names
    for name in ("matrix", "vector"):
        np.testing.assert_array_equal(read_whole(weights, name), tensors[name].numpy())
    (tmp_path / names[1]).unlink()
    with pytest.raises(CheckpointError, match="has no pytorch_model-00002-of-00002"):
        open_weights(tmp_path)
    torch.save(tensors, tmp_path / names[1])
    with pytest.raises(CheckpointError, match="the weight matrix is in"):
        open_weights(tmp_path)


def test_tied_weights_are_read(tmp_path):
    table = torch.randn(7, 5)
    torch.save({"a": table, "b": table, "c": torch.nn.Parameter(table), "t": table.T}, tmp_path / "pytorch_model.bin")
    weights = open_weights(tmp_path)
    for name in "abc":
        np.testing.assert_array_equal(read_whole(weights, name), table.numpy())
    np.testing.assert_array_equal(read_whole(weights, "t"), table.T.numpy())


class Plain(torch.nn.Module):
    """A module of a user's own."""


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def compressed(value):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(value))) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in source.infolist():
            out.writestr(entry.filename, source.read(entry))
    return buffer.getvalue()


def lying(value, shape):
    """A file whose pickle says another size than the tensor's."""
    text = saved(value)
    with zipfile.ZipFile(io.BytesIO(text)) as source:
        entries = {entry.filename: source.read(entry) for entry in source.infolist()}
    (name,) = [name for name in entries if name.endswith("data.pkl")]
    assert b"K\x03\x85" in entries[name]  # the shape (3,)
    entries[name] = entries[name].replace(b"K\x03\x85", b"J" + struct.pack("<i", shape) + b"\x85", 1)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return buffer.getvalue()


def scripted():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)


NO_WEIGHTS = {
    "meta": (lambda: saved({"a": torch.empty(3, device="meta")}), "a is a tensor without numbers"),
    "sparse": (lambda: saved({"a": torch.eye(3).to_sparse()}), "a is a sparse tensor"),
    "sparse rows": (lambda: saved({"a": torch.eye(3).to_sparse_csr()}), "a is a sparse tensor"),
    "sparse columns": (lambda: saved({"a": torch.eye(3).to_sparse_csc()}), "a is a sparse tensor"),
    "sparse blocks": (lambda: saved({"a": torch.eye(4).to_sparse_bsr((2, 2))}), "a is a sparse tensor"),
    "quantised": (lambda: saved({"a": quantised()}), "a is a quantised tensor"),
    "nested": (
        lambda: saved({"a": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])}), "a is a nested tensor"),
    "stride 0": (lambda: saved({"a": torch.zeros(1).expand(1 << 40)}), "more numbers than the file holds"),
    "stride 0 of rows": (lambda: saved({"a": torch.zeros(5).expand(1 << 30, 5)}), "more numbers than the file holds"),
    "stride 1 twice": (lambda: saved({"a": torch.zeros(99).unfold(0, 50, 1)}), "more numbers than the file holds"),
    "one memory for all": (
        lambda: saved({str(n): value for n, value in enumerate([torch.zeros(10_000)] * 99)}), "more numbers than it"),
    "compressed": (lambda: compressed({"a": torch.zeros(1_000_000)}), "compressed archive"),
    "a size that is not there": (lambda: lying({"a": torch.zeros(3)}, 1 << 30), "pytorch_model.bin"),
    "a whole module": (lambda: saved(torch.nn.Linear(2, 2)), r"the class torch\.nn\.modules\.linear\.Linear.*run code"),
    "a module of one's own": (lambda: saved(Plain()), r"the class \S*Plain\).*save_pretrained"),
    "an old whole module": (
        lambda: saved(torch.nn.Linear(2, 2), _use_new_zipfile_serialization=False), "Linear.*run code"),
    "a program": (scripted, "TorchScript"),
    "a key that is a number": (lambda: saved({1: torch.zeros(3)}), r"the key 1\)"),
    "a key that is a tuple": (lambda: saved({("a", 1): torch.zeros(3)}), r"the key \('a', 1\)"),
    "a key that is nothing": (lambda: saved({None: torch.zeros(3)}), "the key None"),
    "bytes for a key": (lambda: saved({b"a": torch.zeros(3)}), "the key b'a'"),
    "a checkpoint of training": (lambda: saved({"state_dict": {"a": torch.zeros(3)}}), "'state_dict' is a dict"),
    "beside a number": (lambda: saved({"a": torch.zeros(3), "epoch": 3}), "'epoch' is a int"),
    "nothing for a weight": (lambda: saved({"a": None}), "'a' is a NoneType"),
    "a tensor": (lambda: saved(torch.zeros(3)), "holds a Tensor"),
    "a list": (lambda: saved([torch.zeros(3)]), "holds a list"),
    "cut": (lambda: saved({"a": torch.zeros(3000)})[:-400], "pytorch_model.bin"),
    "cut, old": (
        lambda: saved({"a": torch.zeros(3000)}, _use_new_zipfile_serialization=False)[:-400], "pytorch_model.bin"),
    "a zip of something else": (lambda: compressed_text(), "pytorch_model.bin"),
}  # fmt: skip


def compressed_text():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        out.writestr("a.txt", "text")
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_torch_saves_that_is_no_weight(tmp_path, name):
    make, message = NO_WEIGHTS[name]
    (tmp_path / "pytorch_model.bin").write_bytes(make())
    with pytest.raises(CheckpointError, match=message) as raised:
        open_weights(tmp_path)
    assert "\n" not in str(raised.value)
    assert "\x1b" not in str(raised.value)
    assert "weights_only" not in str(raised.value)


def test_plain_tensors_of_every_floating_type_are_read(tmp_path):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        values = {
            "plain": torch.randn(3, 4).to(dtype),
            "transposed": torch.randn(4, 3).to(dtype).T,
            "a part": torch.randn(9, 9).to(dtype)[2:5, 1:5],
            "of a complex": torch.randn(3, 4, dtype=torch.complex64).conj().imag.to(dtype),
            "parameter": torch.nn.Parameter(torch.randn(3, 4).to(dtype)),
            "empty": torch.zeros(0, 4, dtype=dtype),
        }
        torch.save(values, tmp_path / "pytorch_model.bin")
        weights = open_weights(tmp_path)
        for name, value in values.items():
            if value.numel():
                np.testing.assert_array_equal(read_whole(weights, name), value.detach().float().resolve_neg().numpy())


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
