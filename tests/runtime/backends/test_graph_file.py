"""What a graph names outside itself, and what is odd about it, is seen before an engine sees the graph."""

import hashlib
import json
import os
import random

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from bgert import Encoder
from bgert.backends.graph_file import external_tensors, verify_graph
from bgert.errors import ModelFolderError
from bgert.model_folder import Manifest


@pytest.fixture(scope="module")
def exported(write_model, make_config, tmp_path_factory):
    """A tiny model with a graph of every target."""
    from bgert_export import export
    from bgert_export.targets import TARGETS

    root = tmp_path_factory.mktemp("graphs")
    export(
        write_model(root / "checkpoint", config=make_config(hidden_size=64, num_attention_heads=2)),
        root / "model",
        targets=[name for name in TARGETS if not name.startswith("cuda-fused")],  # a folder holds one of cuda's fp16
        verify=False,
        pooling="cls",
        normalize=True,
    )
    return root / "model"


@pytest.fixture
def folder(exported, tmp_path):
    """The same with the files of the first CPU graph alone, to be changed."""
    raw = json.loads((exported / "manifest.json").read_text())
    raw["graphs"] = [graph for graph in raw["graphs"] if graph["target"] == "cpu"][:1]
    for entry in raw["tokenizer_files"] + raw["graphs"][0]["files"]:
        (tmp_path / entry["name"]).write_bytes((exported / entry["name"]).read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    return tmp_path


def sign(folder):
    """Make every size and digest fit, as whoever makes a folder can."""
    raw = json.loads((folder / "manifest.json").read_text())
    for entry in [*raw["tokenizer_files"], *(entry for graph in raw["graphs"] for entry in graph["files"])]:
        content = (folder / entry["name"]).read_bytes()
        entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(raw))


def change(folder, edit):
    path = folder / Manifest.read(folder).graphs[0].files[0].name
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    sign(folder)


def refused(folder):
    """The message of what must be refused before an engine is asked."""
    with pytest.raises(ModelFolderError) as caught:
        verify_graph(folder, Manifest.read(folder).graphs[0])
    with pytest.raises(ModelFolderError, match=r"refused|export the checkpoint again"):
        Encoder(folder, device="cpu")
    return str(caught.value)


def test_all_that_bgert_writes(exported):
    manifest = Manifest.read(exported)
    assert {graph.target for graph in manifest.graphs} == {"cpu", "cuda", "tensorrt", "portable"}
    for graph in manifest.graphs:
        path = verify_graph(exported, graph)
        with pytest.raises(ModelFolderError, match="at most"):
            verify_graph(exported, graph, graph.files[0].size - 1)
        listed = {entry.location for entry in external_tensors(path.read_bytes())}
        tensors = onnx.load(path, load_external_data=False).graph.initializer
        assert listed == {entry.value for one in tensors for entry in one.external_data if entry.key == "location"}
        assert len(listed) == (graph.target != "portable")  # which is whole


def outside(model):
    """The initializers that lie in another file."""
    return [tensor for tensor in model.graph.initializer if tensor.external_data]


def set_place(tensor, **values):
    for entry in tensor.external_data:
        entry.value = str(values.get(entry.key, entry.value))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd", "../x", "link", "./cpu.onnx.data", "sub/../cpu.onnx.data", "manifest.json", "vocab.txt",
        "cpu.onnx", "", ".", "*/_ORT_MEM_ADDR_/*", "cpu.onnx.data\0x", "CPU.ONNX.DATA", "file:///x", "a" * 5000,
    ],
)  # fmt: skip
def test_a_location_that_the_manifest_does_not_list(folder, location):
    (folder / "link").symlink_to("/etc/passwd")
    change(folder, lambda model: set_place(outside(model)[0], location=location))
    assert "which the manifest does not list for it" in refused(folder)


def test_weights_that_are_a_link_elsewhere(folder):
    """Whatever lies there: its digest fits here."""
    name = Manifest.read(folder).graphs[0].files[1].name
    secret = folder.parent / f"{folder.name}-secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    with pytest.raises(ModelFolderError, match="a link to a file outside the model folder"):
        Encoder(folder, device="cpu")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"offset": "-1"}, "no number"),
        ({"offset": "0x10"}, "no number"),
        ({"offset": "١"}, "no number"),
        ({"offset": "9" * 30}, "no number"),
        ({"offset": "9" * 18}, "a weight ends at byte"),
        ({"length": "8"}, "not those of its shape"),
        ({"length": ""}, "no number"),
        ({"offset": "4096"}, "overlap"),
    ],
)
def test_places_that_do_not_fit(folder, values, message):
    change(folder, lambda model: set_place(outside(model)[0], **values))
    assert message in refused(folder)


def external(name="stolen", location="/etc/passwd"):
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def subgraph():
    return helper.make_graph([], "inner", [], [], [external()])


def attribute(**fields):
    return AttributeProto(name="x", **fields)


def add(**fields):
    """A node with an attribute."""
    return lambda model: model.graph.node.add(op_type="Constant", output=["x"]).attribute.append(attribute(**fields))


def sparse():
    return onnx.SparseTensorProto(values=external(), indices=external("at"), dims=[16])


EDITS = {
    "an initializer": lambda model: model.graph.initializer.append(external()),
    "an attribute": add(type=AttributeProto.TENSOR, t=external()),
    "attributes": add(type=AttributeProto.TENSORS, tensors=[external()]),
    "a subgraph": add(type=AttributeProto.GRAPH, g=subgraph()),
    "subgraphs": add(type=AttributeProto.GRAPHS, graphs=[subgraph()]),
    "a sparse attribute": add(type=AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse()),
    "sparse attributes": add(type=AttributeProto.SPARSE_TENSORS, sparse_tensors=[sparse()]),
    "a sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse()),
    "a function": lambda model: model.functions.add(name="f", domain="bgert"),
    "training": lambda model: model.training_info.add().initialization.CopyFrom(subgraph()),
    "metadata": lambda model: model.metadata_props.add(key="ort_config", value="{}"),
    "quantization": lambda model: model.graph.quantization_annotation.add(tensor_name="x"),
    "another domain": lambda model: model.graph.node.add(op_type="Evil", domain="evil.ops"),
    "an imported domain": lambda model: model.opset_import.add(domain="evil.ops", version=1),
    "inside and outside": lambda model: setattr(outside(model)[0], "raw_data", b"x"),
    "outside, said to be inside": lambda model: setattr(outside(model)[0], "data_location", 0),
    "outside without a place": lambda model: outside(model)[0].ClearField("external_data"),
    "two locations": lambda model: outside(model)[0].external_data.add(key="location", value="/etc/passwd"),
    "a checksum": lambda model: outside(model)[0].external_data.add(key="checksum", value="0"),
    "a weight of strings": lambda model: setattr(outside(model)[0], "data_type", TensorProto.STRING),
    "a weight of a million dimensions": lambda model: outside(model)[0].dims.extend([2**62] * 10**6),
    "negative dimensions": lambda model: outside(model)[0].dims.extend([-1, -1]),
    "segments": lambda model: setattr(outside(model)[0].segment, "begin", 1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_bgert_never_writes(folder, edit):
    change(folder, EDITS[edit])
    assert ": refused; export the checkpoint again" in refused(folder)


def test_weights_beside_the_graph_that_it_does_not_use(folder):
    name = Manifest.read(folder).graphs[0].files[1].name
    with (folder / name).open("ab") as file:
        file.write(bytes(4096))
    sign(folder)
    assert "and the graph uses" in refused(folder)


def test_weights_without_an_entry(folder):
    raw = json.loads((folder / "manifest.json").read_text())
    raw["graphs"][0]["files"] = raw["graphs"][0]["files"][:1]
    (folder / "manifest.json").write_text(json.dumps(raw))
    assert "which the manifest does not list for it" in refused(folder)


def field(number, content):
    """A field of bytes, as protobuf writes it."""
    size, out = len(content), []
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *out, size]) + content


def test_a_second_value_for_what_there_is_once(folder):
    """protobuf merges them, the last one wins: `graph`, `data_location`, `location` could each have two faces."""
    path = folder / Manifest.read(folder).graphs[0].files[0].name
    path.write_bytes(path.read_bytes() + field(7, field(5, external().SerializeToString())))
    sign(folder)
    assert "graph of a model" in refused(folder)


def test_a_file_of_onnx_runtimes_own_format(folder):
    path = folder / Manifest.read(folder).graphs[0].files[0].name
    path.write_bytes(field(2, b"xxORTM") + path.read_bytes())  # also valid protobuf: producer_name
    sign(folder)
    assert "it is no ONNX file" in refused(folder)


def test_damaged_files_end_in_one_kind_of_error(folder):
    seed = int(os.environ.get("BGERT_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print("seed", seed)
    draw = random.Random(seed)
    content = (folder / Manifest.read(folder).graphs[0].files[0].name).read_bytes()
    failed = 0
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(damaged))
            damaged[at : at + draw.randint(0, 3)] = draw.randbytes(draw.randint(0, 3))
        if draw.random() < 0.1:
            del damaged[draw.randrange(len(damaged)) :]
        try:
            external_tensors(bytes(damaged))
        except ValueError:
            failed += 1
    assert failed > 100
    for length in range(200):
        with pytest.raises(ValueError, match=r"."):
            external_tensors(content[:length])
