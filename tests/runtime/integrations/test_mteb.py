"""The mteb wrapper, by mteb itself where it is installed, on a task made here."""

import importlib.util
import sys
import warnings

import numpy as np
import pytest

from bgert import EngineNotInstalledError, InvalidOptionError
from bgert.integrations.mteb import MtebEncoder

DOCUMENTS = {
    "d1": ("Copy a folder", "copy a folder with everything in it"),
    "d2": ("", "the weather is fine today"),
    "d3": ("JSON", "parse a JSON document into objects"),
    "d4": ("", "compress a file with gzip"),
    "d5": ("Folders", "remove a folder and all files below it"),
}
QUERIES = {"q1": "how do I copy a directory", "q2": "read JSON", "q3": "make a file smaller or delete a directory"}
QRELS = {"q1": {"d1": 2, "d5": 1}, "q2": {"d3": 1, "d1": 0}, "q3": {"d4": 1, "d5": 1}}


def encode(model, texts, **options):
    batches = [{"text": texts[:2], "id": ["x", "y"]}, {"text": texts[2:], "id": ["z"]}]
    return model.encode(batches, task_metadata=None, hf_split="test", hf_subset="default", **options)


@pytest.fixture(scope="module")
def prompted(write_model, sentence_transformers_files, tmp_path_factory):
    from bgert import Encoder
    from bgert_export import export

    folder = tmp_path_factory.mktemp("prompted")
    files = sentence_transformers_files(prompts={"query": "find the file: ", "document": "text: "})
    export(write_model(folder / "checkpoint", files=files), folder / "model", verify=False)
    return Encoder(folder / "model")


def test_prompts_follow_the_type(prompted):
    model = MtebEncoder(prompted, "bgert/tiny")
    texts = ["copy a file", "the folder", "a list of names"]
    for kind, prefix in {None: "", "query": "find the file: ", "document": "text: "}.items():
        rows = encode(model, texts, prompt_type=kind, batch_size=1, show_progress_bar=False)
        assert type(rows) is np.ndarray
        np.testing.assert_array_equal(rows, prompted.encode([prefix + text for text in texts]))


@pytest.mark.parametrize(
    "options", [{"precision": "int8"}, {"prompt_type": "passage"}], ids=["precision", "prompt_type"]
)
def test_refusals(prompted, options):
    with pytest.raises(InvalidOptionError):
        encode(MtebEncoder(prompted, "bgert/tiny"), ["a", "b", "c"], **options)
    with pytest.raises(InvalidOptionError, match="no text"):
        MtebEncoder(prompted, "a/b").encode([{"image": []}], task_metadata=None, hf_split="", hf_subset="")


@pytest.mark.parametrize("name", [None, "", "tiny", "/tiny", "bgert/"])
def test_a_name_has_an_organization(prompted, name):
    with pytest.raises(InvalidOptionError, match="organization/model"):
        MtebEncoder(prompted, name)


def test_without_mteb(prompted, monkeypatch):
    for module in ("mteb", "mteb.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineNotInstalledError, match=r"extra `mteb`"):
        _ = MtebEncoder(prompted, "bgert/tiny").mteb_model_meta


@pytest.fixture(scope="module")
def mteb(tmp_path_factory):
    if importlib.util.find_spec("mteb") is None:
        pytest.skip("mteb is not installed: it is the extra `mteb`")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("MTEB_CACHE", str(tmp_path_factory.mktemp("mteb")))  # it makes the folder when imported
        warnings.simplefilter("ignore")
        import mteb
    return mteb


def task_of(mteb, documents, queries, qrels, prompt=None):
    """A retrieval task of mteb without a data set on the hub."""
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    class LocalTask(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="LocalRetrieval",
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            description="Made for a test.",
            reference=None,
            dataset={"path": "local/none", "revision": "none"},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            prompt=prompt,
        )

        def load_data(self, **_):
            split = RetrievalSplitData(
                corpus=Dataset.from_list(
                    [{"id": name, "title": title, "text": text} for name, (title, text) in documents.items()]
                ),
                queries=Dataset.from_list([{"id": name, "text": text} for name, text in queries.items()]),
                relevant_docs=qrels,
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return LocalTask()


def run(mteb, model, *task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of mteb and of what it imports are not ours
        result = mteb.evaluate(model, task_of(mteb, *task), cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    return scores


def test_mteb_finds_what_eval_finds(mteb, encoder):
    from bgert.evaluation import Collection, evaluate

    texts = [f"{title} {text}".strip() for title, text in DOCUMENTS.values()]
    ours = evaluate(
        encoder, Collection(list(DOCUMENTS), texts, QUERIES, QRELS), metrics=["ndcg@1", "ndcg@10", "recall@3", "mrr@10"]
    ).metrics
    scores = run(mteb, MtebEncoder(encoder, "sentence-transformers/all-MiniLM-L6-v2"), DOCUMENTS, QUERIES, QRELS)
    theirs = {name: scores[name.replace("@", "_at_")] for name in ours}
    assert theirs == pytest.approx(ours, abs=1e-5)  # mteb rounds to five places
    assert scores["main_score"] == scores["ndcg_at_10"] > 0.9


def test_mteb_gives_queries_and_documents_their_prompts(mteb, prompted):
    seen = {}

    class Watched(MtebEncoder):
        def encode(self, inputs, **options):
            rows = super().encode(inputs, **options)
            seen[str(options["prompt_type"].value)] = rows
            return rows

    run(mteb, Watched(prompted, "bgert/tiny"), DOCUMENTS, QUERIES, QRELS)
    assert seen.keys() == {"query", "document"}
    expected = prompted.encode(["find the file: " + text for text in QUERIES.values()])
    np.testing.assert_array_equal(seen["query"], expected)
    assert len(seen["document"]) == len(DOCUMENTS)


def test_protocol_and_metadata(mteb, encoder, prompted):
    from mteb.models.models_protocols import EncoderProtocol

    model = MtebEncoder(encoder, "sentence-transformers/all-MiniLM-L6-v2")
    assert isinstance(model, EncoderProtocol)
    meta = model.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.max_tokens) == (model.name, 384, 256)
    assert meta.experiment_kwargs["precision"] == "fp32"
    assert meta.revision
    other = MtebEncoder(prompted, model.name).mteb_model_meta
    assert other.experiment_name != meta.experiment_name


def test_similarity_is_the_cosine(mteb, encoder):
    model = MtebEncoder(encoder, "a/b")
    left, right = np.array([[1.0, 0], [3, 4]]), np.array([[2.0, 0], [0, 5]])
    np.testing.assert_allclose(model.similarity(left, right), [[1, 0], [0.6, 0.8]], atol=1e-6)
    np.testing.assert_allclose(model.similarity_pairwise(left, right), [1, 0.8], atol=1e-6)
