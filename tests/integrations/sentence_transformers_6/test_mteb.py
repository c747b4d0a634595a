"""mteb both ways, a SentenceTransformer of an exported folder and `MtebEncoder`: the same scores, PyTorch's."""

import warnings

import pytest
from sentence_transformers import SentenceTransformer

DOCUMENTS = {
    "d1": "copy a folder with everything in it",
    "d2": "the weather is fine today",
    "d3": "parse a JSON document into objects",
    "d4": "compress a file with gzip",
    "d5": "remove a folder and all files below it",
}
QUERIES = {"q1": "how do I copy a directory", "q2": "read JSON", "q3": "make a file smaller or delete a directory"}
RELEVANT = {"q1": {"d1": 2, "d5": 1}, "q2": {"d3": 1}, "q3": {"d4": 1, "d5": 1}}


@pytest.fixture(scope="module")
def mteb(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("MTEB_CACHE", str(tmp_path_factory.mktemp("mteb")))  # it makes the folder when imported
        warnings.simplefilter("ignore")
        import mteb
    return mteb


def scores_of(mteb, model):
    """On a retrieval task without a data set on the hub."""
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
        )

        def load_data(self, **_):
            corpus, queries = (
                Dataset.from_list([{"id": name, "text": text} for name, text in texts.items()])
                for texts in (DOCUMENTS, QUERIES)
            )
            split = RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=RELEVANT, top_ranked=None)
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = mteb.evaluate(model, LocalTask(), cache=None, co2_tracker=False, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    return {name: value for name, value in scores.items() if isinstance(value, float)}


def test_one_score_three_ways(mteb, models, encoder):
    from bgert.integrations.mteb import MtebEncoder

    torch_model = SentenceTransformer(str(models["minilm"]), device="cpu")
    folder = SentenceTransformer(str(models["exported-minilm"]), trust_remote_code=True, device="cpu")
    expected = scores_of(mteb, torch_model)
    assert expected["ndcg_at_10"] > 0.8
    assert scores_of(mteb, folder) == pytest.approx(expected, abs=1e-5, nan_ok=True)
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert scores_of(mteb, MtebEncoder(encoder, name)) == pytest.approx(expected, abs=1e-5, nan_ok=True)
