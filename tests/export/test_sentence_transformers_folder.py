"""Every exported folder is a folder of sentence-transformers too: two files that say what the manifest says."""

import importlib
import json

import numpy as np
import pytest

from bgert.model_folder import Manifest
from bgert_export import export

FILES = ("modules.json", "config_sentence_transformers.json")


def read(folder):
    return [json.loads((folder / name).read_text("utf-8")) for name in FILES]


@pytest.mark.parametrize(
    ("prompts", "default"), [(None, None), ({"query": "query ", "title": "题 "}, "title"), ({"query": ""}, "query")]
)
@pytest.mark.parametrize("similarity", [None, "dot", "maxsim"])
def test_an_encoder(make_checkpoint, sentence_transformers_files, tmp_path, prompts, default, similarity):
    files = sentence_transformers_files("mean", prompts=prompts)
    stated = {"prompts": prompts or {}, "default_prompt_name": default, "similarity_fn_name": similarity}
    files["config_sentence_transformers.json"] = stated
    manifest = export(make_checkpoint(files=files), tmp_path / "out", verify=False)
    modules, config = read(tmp_path / "out")
    assert (config["prompts"], config["default_prompt_name"]) == (manifest.prompts, manifest.default_prompt)
    assert manifest.prompts == {"query": "", "document": ""} | (prompts or {})
    assert config["similarity_fn_name"] == ("dot" if similarity == "dot" else "cosine")
    assert config["model_type"] == "SentenceTransformer"
    assert [(module["path"], module["type"].rpartition(".")[2]) for module in modules] == [("", "EncoderModule")]


@pytest.mark.parametrize("stated", [None, "torch.nn.modules.linear.Identity", "os.system"])
def test_a_reranker(make_checkpoint, make_config, tmp_path, stated):
    config = make_config(architectures=["BertForSequenceClassification"], num_labels=1)
    if stated:
        config["sentence_transformers"] = {"activation_fn": stated}
    export(make_checkpoint(config=config), tmp_path / "out", verify=False)
    modules, written = read(tmp_path / "out")
    assert modules[0]["type"].endswith(".RerankerModule")
    assert written["model_type"] == "CrossEncoder"
    assert written["activation_fn"] == ("torch.nn.Sigmoid" if stated != "torch.nn.modules.linear.Identity" else stated)


def test_bgert_does_not_read_them(make_checkpoint, sentence_transformers_files, tmp_path):
    """They may be missing, as in folders of before, changed, or hostile."""
    from bgert import Encoder

    export(make_checkpoint(files=sentence_transformers_files("mean")), tmp_path / "out", verify=False)
    expected = Encoder(tmp_path / "out").encode(["a file"])
    for change in (lambda path: path.write_text("["), lambda path: path.unlink()):
        for name in FILES:
            change(tmp_path / "out" / name)
        np.testing.assert_array_equal(Encoder(tmp_path / "out").encode(["a file"]), expected)
    assert not set(FILES) & {entry.name for entry in Manifest.read(tmp_path / "out").files()}


def test_it_is_no_checkpoint(make_checkpoint, sentence_transformers_files, tmp_path):
    from bgert.hub import locate
    from bgert_export.errors import CheckpointError

    source = make_checkpoint(files=sentence_transformers_files("mean"))
    export(source, tmp_path / "out", verify=False)
    with pytest.raises(CheckpointError, match="a model folder that bgert wrote"):
        export(tmp_path / "out", tmp_path / "again", verify=False)
    assert locate(tmp_path / "out") == tmp_path / "out"


def test_sentence_transformers_opens_it(make_checkpoint, sentence_transformers_files, tmp_path):
    """More, in both of its versions: tests/integrations/sentence_transformers_any."""
    from sentence_transformers import SentenceTransformer

    from bgert import Encoder

    files = sentence_transformers_files("mean", prompts={"query": "query "})
    export(make_checkpoint(files=files), tmp_path / "out", verify=False)
    texts = ["copy a file", "", "今天", "query"]
    model, encoder = (
        SentenceTransformer(str(tmp_path / "out"), trust_remote_code=True, device="cpu"),
        Encoder(tmp_path / "out"),
    )
    np.testing.assert_array_equal(model.encode(texts), encoder.encode(texts))
    np.testing.assert_array_equal(model.encode_query(texts), encoder.encode_queries(texts))
    np.testing.assert_array_equal(model.encode_document(texts), encoder.encode_corpus(texts))


def test_without_sentence_transformers(monkeypatch):
    """The module says what it needs; nothing else of bgert imports it."""
    import sys

    from bgert import EngineNotInstalledError

    monkeypatch.setitem(sys.modules, "sentence_transformers.base.modules", None)
    monkeypatch.delitem(sys.modules, "bgert.integrations.sentence_transformers", raising=False)
    with pytest.raises(EngineNotInstalledError, match=r"needs sentence-transformers 5\.7 or later"):
        importlib.import_module("bgert.integrations.sentence_transformers")


def test_what_sentence_transformers_saves_is_verified_as_asked_for(
    make_checkpoint, sentence_transformers_files, tmp_path
):
    """A limit and a prompt that were set there: the checkpoint is compared under them, and the report says so."""
    from sentence_transformers import SentenceTransformer

    from bgert_export.checkpoint import Checkpoint, locate
    from bgert_export.verification.verify import verify_folder

    source = make_checkpoint(files=sentence_transformers_files("mean", prompts={"query": "query "}))
    export(source, tmp_path / "out", verify=False)
    model = SentenceTransformer(
        str(tmp_path / "out"), trust_remote_code=True, device="cpu", prompts={"query": "other "}
    )
    model.max_seq_length = 32
    model.save(str(tmp_path / "saved"), create_model_card=False)
    (report,) = verify_folder(tmp_path / "saved", Checkpoint.open(locate(source)))
    assert report.passed, report.failures
    notes = {call.call: call.not_compared for call in report.parity.calls}
    assert "the limit of 32 tokens, which was asked for" in notes["encode"]
    assert "the query prompt, which was asked for" in notes["encode_queries"]
