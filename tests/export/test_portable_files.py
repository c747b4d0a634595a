"""The tokenizer's files beside a portable graph, as other programs read them: by tokenizers and transformers alone."""

import json
import sys

import numpy as np
import pytest
import tokenizers
import transformers

import bgert
from bgert.model_folder import Manifest
from bgert_export import export
from bgert_export.checkpoint import locate
from bgert_export.errors import CheckpointError, ExtraNotInstalledError, UnsupportedCheckpointError

TEXTS = ["copy a file", "", "Größe café [MASK] 😀", "the model of the day " * 40]
OPTIONS = {"pooling": "mean", "normalize": True, "targets": ["portable"], "verify": False}
# Limits of two kinds, fixed padding, and that on the left: as published files have them.
ODD = {"model_max_length": 48, "max_length": 16, "padding_side": "left", "truncation_side": "right"}


@pytest.fixture
def checkpoint(write_model, tmp_path):
    folder = write_model(tmp_path / "model")
    transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    written = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(written | ODD))
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(16)
    backend.enable_padding(direction="left", length=16)
    backend.save(str(folder / "tokenizer.json"))
    return folder


def test_tokenizer_json_gives_bgerts_tokens_padded_on_the_right(checkpoint, tmp_path):
    out = tmp_path / "out"
    manifest = export(checkpoint, out, **OPTIONS)
    ours = bgert.Tokenizer.from_folder(out).encode_batch(TEXTS, max_length=manifest.max_tokens)
    lengths = np.diff(ours.cu_seqlens)
    assert lengths.max() == manifest.max_tokens == 48
    found = tokenizers.Tokenizer.from_file(str(out / "tokenizer.json")).encode_batch(TEXTS)
    ids = [np.array(entry.ids)[np.array(entry.attention_mask, bool)] for entry in found]
    np.testing.assert_array_equal(np.concatenate(ids), ours.ids)
    assert [entry.attention_mask for entry in found] == [[1] * n + [0] * (48 - n) for n in lengths]
    opened = transformers.AutoTokenizer.from_pretrained(out)
    given = opened(TEXTS, padding=True, truncation=True)
    assert given["input_ids"] == [entry.ids for entry in found]
    assert sorted(given) == ["attention_mask", "input_ids", "token_type_ids"]
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert "max_length" not in config  # of which fastembed takes the lesser
    assert json.loads((out / "special_tokens_map.json").read_text())["mask_token"]["content"] == "[MASK]"
    assert json.loads((out / "config.json").read_text())["model_type"] == "bert"


def test_pairs_have_their_types(make_reranker_checkpoint, tmp_path):
    export(make_reranker_checkpoint(1), tmp_path / "out", targets=["portable"], verify=False)
    ours = bgert.Tokenizer.from_folder(tmp_path / "out").encode_batch(["copy a file"], ["list"])
    found = tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("copy a file", "list")
    assert found.ids == ours.ids.tolist()
    assert found.type_ids == ours.type_ids.tolist()
    assert 1 in found.type_ids


def test_files_that_would_say_something_else_are_refused(make_reranker_checkpoint, tmp_path):
    """transformers gives such pairs no types, and tokenizer.json does: who reads that alone would be wrong."""
    folder = make_reranker_checkpoint(1)
    path = folder / "tokenizer_config.json"
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | names))
    with pytest.raises(UnsupportedCheckpointError, match="leave the target portable out"):
        export(folder, tmp_path / "out", targets=["portable"], verify=False)
    assert not (tmp_path / "out").exists()


def test_the_folder_is_no_checkpoint_and_opens(checkpoint, tmp_path):
    out = tmp_path / "out"
    export(checkpoint, out, **(OPTIONS | {"targets": ["portable", "cpu"]}))
    with pytest.raises(CheckpointError, match="model folder that bgert wrote"):
        locate(out)
    assert bgert.Encoder(out).encode("copy a file").shape == (Manifest.read(out).dimensions,)


def test_beside_hf_tokenizers_in_bgert(checkpoint, tmp_path):
    """Two files: other programs read a limit and padding, bgert neither."""
    out = tmp_path / "out"
    options = OPTIONS | {"targets": ["portable", "cpu"], "tokenizer": "huggingface", "verify": True}
    manifest = export(checkpoint, out, **options)
    assert "tokenizer.json" not in [entry.name for entry in manifest.tokenizer_files]
    assert tokenizers.Tokenizer.from_file(str(out / "tokenizer.json")).truncation["max_length"] == manifest.max_tokens
    assert bgert.Encoder(out).tokenizer.count(["copy a file " * 90])[0] > manifest.max_tokens


def test_without_transformers_export_says_what_to_install(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ExtraNotInstalledError, match="portable needs transformers"):
        export(checkpoint, tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
