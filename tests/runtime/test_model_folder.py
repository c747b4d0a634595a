import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import bgert.model_folder
from bgert.errors import IntegrityError, ModelFolderError, ModelNotFoundError
from bgert.model_folder import CallParity, Choice, FileEntry, GraphEntry, Manifest, Parity, verify_files


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "graph.onnx").write_bytes(b"graph bytes")
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n")
    manifest(tmp_path).write(tmp_path)
    return tmp_path


def manifest(folder):
    graph = GraphEntry(
        target="cpu",
        precision="fp32",
        files=[FileEntry.of(folder, "graph.onnx")],
        inputs=["input_ids"],
        output="embeddings",
        opset={"": 17},
        ir_version=8,
        minimum_engine="onnxruntime 1.20",
        parity=Parity("torch", "texts", 3, 1e-6, 0.9999999, 1.0, calls=[CallParity("encode", "peer", 2, 1e-6, "why")]),
    )
    return Manifest(
        kind="encoder",
        generator="bgert 0.1.0",
        source={"path": "/model"},
        architecture={"model_type": "bert", "pad_token_id": 0},
        tokenizer={"kind": "wordpiece", "settings": {}, "files": ["vocab.txt"]},
        tokenizer_files=[FileEntry.of(folder, "vocab.txt")],
        max_tokens=512,
        graphs=[graph],
        pooling="cls",
        normalize=True,
        dimensions=8,
        prompts={"query": "为这个句子生成表示：", "document": ""},
        choices=[Choice("pooling", "cls", "1_Pooling/config.json")],
    )


def edit(folder, **changes):
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    raw.update(changes)
    path.write_text(json.dumps(raw))


def test_what_is_written_is_read(folder):
    assert Manifest.read(folder) == manifest(folder)
    verify_files(folder, Manifest.read(folder).files())


def test_the_json_schema_accepts_it_and_is_not_loose(folder):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(Path(bgert.model_folder.__file__).with_name("manifest.schema.json").read_text())
    raw = json.loads((folder / "manifest.json").read_text())
    jsonschema.validate(raw, schema)
    assert schema["properties"].keys() == raw.keys()
    assert schema["$defs"]["graph"]["properties"].keys() == raw["graphs"][0].keys()
    assert schema["$defs"]["parity"]["properties"].keys() == raw["graphs"][0]["parity"].keys()
    call = raw["graphs"][0]["parity"]["calls"][0]
    assert schema["$defs"]["call"]["properties"].keys() == call.keys()
    for broken in ({**raw, "extra": 1}, {**raw, "kind": "x"}, {**raw, "schema_version": 2}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


def test_missing_folder(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no such model folder"):
        Manifest.read(tmp_path / "none")


def test_empty_folder_and_file_and_checkpoint(tmp_path):
    with pytest.raises(ModelFolderError, match=r"no manifest\.json.*bgert export"):
        Manifest.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError, match=r"is a checkpoint, .*export it first with `bgert export "):
        Manifest.read(tmp_path)
    with pytest.raises(ModelFolderError, match="is a file"):
        Manifest.read(tmp_path / "config.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\0", "nan"])
def test_manifest_that_is_no_object(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelFolderError):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "value",
    [
        "[" * 5000 + "]" * 5000,
        "[" * 100 + "]" * 100,
        '{"a":' * 120 + "1" + "}" * 120,
        "NaN",
        "-Infinity",
        "1e400",
        "9" * 5000,
        '"\\ud800"',
    ],
)
def test_json_that_works_in_some_readers_alone(folder, value):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"/model"', value, 1))
    with pytest.raises(ModelFolderError, match="is not valid JSON"):
        Manifest.read(folder)


def test_a_whole_number_is_one_however_it_is_written(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"max_tokens": 512', '"max_tokens": 5.12e2'))
    limit = Manifest.read(folder).max_tokens
    assert (limit, type(limit)) == (512, int)


def test_newer_and_older_schema(folder):
    edit(folder, schema_version=2)
    with pytest.raises(ModelFolderError, match="upgrade bgert"):
        Manifest.read(folder)
    edit(folder, schema_version=0)
    with pytest.raises(ModelFolderError, match="export the checkpoint again"):
        Manifest.read(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unheard_of": 1}, "unknown field 'unheard_of'"),
        ({"max_tokens": "512"}, "max_tokens is '512'"),
        ({"max_tokens": True}, "max_tokens is True, not integer"),
        ({"normalize": 1}, "normalize is 1"),
        ({"kind": "decoder"}, "kind is 'decoder', not encoder or reranker"),
        ({"graphs": {}}, "graphs is {}, not array"),
        ({"graphs": [{"target": "cpu"}]}, r"graphs\[0\] has no field 'precision'"),
        ({"graphs": [3]}, r"graphs\[0\] is 3, not object"),
        ({"max_tokens": 2**40}, "max_tokens is 1099511627776, not of maximum"),
        ({"dimensions": None}, "dimensions is None"),
        ({"kind": "reranker"}, "num_labels is None"),
        ({"default_prompt": "passage"}, "the default prompt 'passage' is none of the prompts"),
        ({"tokenizer_files": []}, "the tokenizer's file 'vocab.txt' has no size and digest"),
    ],
)
def test_fields_of_the_wrong_kind(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(ModelFolderError, match=message):
        Manifest.read(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/passwd", "a/../../b", "", "c:\\x", "..", "a\0b", "./a", "a//b", "a\n", "*/_ORT_MEM_ADDR_/*"],
)
def test_paths_that_leave_the_folder(folder, name):
    outside = replace(manifest(folder), tokenizer_files=[FileEntry(name, 1, "0" * 64)])
    (folder / "manifest.json").write_text(json.dumps(asdict(outside)))
    with pytest.raises(ModelFolderError, match=r"tokenizer_files\[0\]\.name is"):
        Manifest.read(folder)


def test_flipped_byte_truncation_and_missing_file(folder):
    entries = Manifest.read(folder).files()
    (folder / "graph.onnx").write_bytes(b"graph bytez")
    with pytest.raises(IntegrityError, match="changed after export"):
        verify_files(folder, entries)
    (folder / "graph.onnx").write_bytes(b"graph")
    with pytest.raises(IntegrityError, match="has 5 bytes, the manifest says 11"):
        verify_files(folder, entries)
    (folder / "graph.onnx").unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        verify_files(folder, entries)


def test_unreadable_file(folder, monkeypatch):
    def refuse(path, error):
        raise PermissionError(13, "Permission denied")

    entries = Manifest.read(folder).files()
    monkeypatch.setattr(bgert.model_folder, "open_regular", refuse)
    with pytest.raises(IntegrityError, match="Permission denied"):
        verify_files(folder, entries)


def test_links_inside_the_folder_and_out_of_it(folder, tmp_path_factory):
    """A folder may be a link, and hold links to its own files; a file elsewhere is refused, whatever its digest."""
    entries = Manifest.read(folder).files()
    (folder / "graph.onnx").rename(folder / "real")
    (folder / "graph.onnx").symlink_to("real")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "model").symlink_to(folder)
    verify_files(elsewhere / "model", entries)
    (elsewhere / "copy").write_bytes(b"graph bytes")
    (folder / "graph.onnx").unlink()
    (folder / "graph.onnx").symlink_to(elsewhere / "copy")
    with pytest.raises(IntegrityError, match="a link to a file outside the model folder"):
        verify_files(folder, entries)
    (folder / "manifest.json").rename(elsewhere / "manifest.json")
    (folder / "manifest.json").symlink_to(elsewhere / "manifest.json")
    with pytest.raises(ModelFolderError, match="a link to a file outside"):
        Manifest.read(folder)


def test_the_hubs_cache_is_made_of_links(folder, tmp_path_factory):
    cache = tmp_path_factory.mktemp("hub") / "models--org--model"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for number, path in enumerate(folder.iterdir()):
        path.rename(cache / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    entries = Manifest.read(snapshot).files()
    verify_files(snapshot, entries)
    for blob in (cache / "blobs").iterdir():
        blob.rename(cache / blob.name)
        blob.symlink_to(cache / blob.name)  # a blob that is a link itself leads out
    with pytest.raises(IntegrityError, match="outside the model folder"):
        verify_files(snapshot, entries)


def test_graph_by_target_and_precision(folder):
    read = Manifest.read(folder)
    assert read.graph("cpu") is read.graphs[0]
    assert read.graph("cpu", "fp32") is read.graphs[0]
    assert read.graph("cpu", "int8") is None
    assert read.graph("cuda") is None
