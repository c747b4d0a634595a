"""Checkpoints of old sentence-transformers: the network in `0_Transformer`, against sentence-transformers."""

import json

import numpy as np
import pytest

from bgert_export import export
from bgert_export.checkpoint import Checkpoint
from bgert_export.errors import CheckpointError
from bgert_export.source import Source

OF_THE_NETWORK = ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors", "sentence_bert_config.json")


@pytest.fixture
def old(make_checkpoint, sentence_transformers_files):
    """Moves the network into a folder of its own; the root keeps a config.json that is not the network's."""

    def made(folder_name="0_Transformer", pooling="mean"):
        folder = make_checkpoint(files=sentence_transformers_files(pooling, max_seq_length=40))
        (folder / folder_name).mkdir()
        for name in OF_THE_NETWORK:
            (folder / name).rename(folder / folder_name / name)
        (folder / "config.json").write_text('{"__version__": "0.2.0"}')
        modules = json.loads((folder / "modules.json").read_text())
        modules[0]["path"] = folder_name
        (folder / "modules.json").write_text(json.dumps(modules))
        return folder

    return made


@pytest.mark.parametrize("name", ["0_Transformer", "0_BERT", "network"])
def test_it_is_read_as_sentence_transformers_reads_it(old, tmp_path, name):
    from sentence_transformers import SentenceTransformer

    from bgert import Encoder

    folder = old(name)
    manifest = export(folder, tmp_path / "out")
    assert manifest.graphs[0].parity is not None
    assert (manifest.pooling, manifest.max_tokens) == ("mean", 40)
    assert list(manifest.source["weights_sha256"]) == ["model.safetensors"]
    texts = ["copy a file", "", "the list of everything " * 30]
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False)
    with pytest.warns(UserWarning, match="1 of 3 inputs"):
        found = Encoder(tmp_path / "out").encode(texts)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_an_int8_graph_of_it(old, tmp_path):
    export(old(), tmp_path / "out", targets=["cpu-int8"], int8_floor=0.5, verify=False)


def test_the_folder_is_missing(old):
    folder = old()
    (folder / "0_Transformer").rename(folder / "elsewhere")
    with pytest.raises(CheckpointError, match=r"no folder 0_Transformer, where modules\.json says"):
        Checkpoint.open(Source(folder))


@pytest.mark.parametrize("path", ["../checkpoint", "/etc", "a/../..", "0_Transformer\0"])
def test_a_folder_outside(old, path):
    folder = old()
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match=r"modules\.json names the folder .* refused"):
        Checkpoint.open(Source(folder))


@pytest.mark.parametrize("content", ["{", "[" * 5000 + "]" * 5000, "version https://git-lfs.github.com/spec/v1\n"])
def test_damaged_modules(old, content):
    folder = old()
    (folder / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        Checkpoint.open(Source(folder))
