"""What all adapters share; their own tests run in the environments of tests/integrations."""

import inspect
import json
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bgert
from bgert.integrations import adapted
from bgert.integrations.adapted import AdaptedEncoder, AdaptedReranker, EncoderOptions, RerankerOptions, shared_encoder

INTEGRATIONS = Path(adapted.__file__).parent
FRAMEWORKS = {
    "chroma": "chromadb",
    "fastembed": "fastembed",
    "haystack": "haystack",
    "lancedb": "lancedb",
    "langchain": "langchain_core",
    "llama_index": "llama_index",
    "txtai": "txtai",
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_is_named_with_what_to_install(name):
    code = (
        f"import sys, json; sys.modules[{FRAMEWORKS[name]!r}] = None\n"
        f"try:\n    import bgert.integrations.{name}\nexcept ImportError as error:\n"
        "    print(json.dumps([type(error).__name__, str(error)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kind, message = json.loads(done.stdout)
    assert kind == "EngineNotInstalledError"
    package = {"langchain": "langchain-core", "llama_index": "llama-index-core", "haystack": "haystack-ai"}
    assert message.endswith(f": pip install {package.get(name, FRAMEWORKS[name])}")


def test_options_are_those_of_models_and_calls():
    """An option that Encoder, Reranker, encode or score gets is one of the adapters', or is left out for a reason."""

    def of(call):
        return {name for name, one in inspect.signature(call).parameters.items() if one.kind is one.KEYWORD_ONLY}

    instructions = {"prompt", "prefix"}  # adapters take the text itself, under their framework's names
    names = adapted.ModelOptions.__annotations__.keys()
    assert names | EncoderOptions.__annotations__.keys() == (
        of(bgert.Encoder.__init__) | of(bgert.Encoder.encode) - instructions - {"dtype"} | {"normalize"}
    )
    assert names | RerankerOptions.__annotations__.keys() == (
        of(bgert.Reranker.__init__) | of(bgert.Reranker.score) - instructions - {"softmax"}  # of several labels
    )


def test_options_reach_the_model_and_the_call(demo_folder):
    options = {"threads": 1, "dimensions": 64, "max_length": 8, "normalize_embeddings": True, "show_progress": False}
    model = AdaptedEncoder(demo_folder, options)
    with pytest.warns(bgert.TruncationWarning):
        vectors = model.documents(["one two three four five six seven eight nine"])
    assert vectors.shape == (1, 64)
    assert model.dimensions == 64
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(np.asarray(again.queries(["a"])), np.asarray(model.queries(["a"])))


@pytest.mark.parametrize("name", sorted(adapted._ELSEWHERE))
def test_what_other_classes_take_is_refused_by_name(name):
    for model in (AdaptedEncoder, AdaptedReranker):
        with pytest.raises(bgert.InvalidOptionError, match=f"no {name} here: "):
            model("/no/such/folder", {name: 1})


def test_an_unknown_option_is_refused_with_those_there_are():
    with pytest.raises(bgert.InvalidOptionError, match="unknown option 'lenght': there are device, dimensions"):
        AdaptedEncoder("/no/such/folder", {"lenght": 1})


def test_a_reranker_with_several_labels_is_refused(make_reranker_checkpoint, tmp_path):
    from bgert_export import export

    export(make_reranker_checkpoint(num_labels=3), tmp_path / "model", verify=False)
    with pytest.raises(bgert.InvalidOptionError, match="3 scores a pair"):
        AdaptedReranker(tmp_path / "model", {})


def test_equal_arguments_share_a_model(demo_folder, monkeypatch, tmp_path):
    monkeypatch.chdir(demo_folder.parent)
    relative = shared_encoder(demo_folder.name, {}, query_instruction=None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(bgert.ModelNotFoundError):
        shared_encoder(demo_folder.name, {}, query_instruction=None)
    assert relative.dimensions == 384
    first = shared_encoder(demo_folder, {"threads": 1}, query_instruction=None)
    assert shared_encoder(str(demo_folder), {"threads": 1}, query_instruction=None) is first
    assert shared_encoder(demo_folder, {"threads": 2}, query_instruction=None) is not first
    assert shared_encoder(demo_folder, {"threads": 1}, query_instruction="") is not first


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_child_forked_while_a_model_is_opened_can_open_its_own():
    context = multiprocessing.get_context("fork")
    with adapted.opening.lock:
        child = context.Process(target=_take_the_lock)
        child.start()
        child.join(60)
    assert child.exitcode == 0


def _take_the_lock():
    sys.exit(0 if adapted.opening.lock.acquire(timeout=10) else 1)
