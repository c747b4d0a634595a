"""bgert's figures on candidates to order, beside mteb's task and FlagEmbedding's own evaluation of rerankers."""

import re
import warnings

import numpy as np
import pages
import pytest
from FlagEmbedding import FlagReranker
from sklearn.metrics import average_precision_score

from bgert.evaluation import Candidates, evaluate_reranking
from bgert.integrations.mteb import MtebEncoder

WORDS = "paris is the capital of france bread flour water read a file list folder copy weather today python"


@pytest.fixture(scope="module")
def samples():
    """Queries with one to four positive and one to nine negative texts, some of them twice, and two that mteb drops.

    No text is of both kinds: mteb's product of matrices may give equal vectors unlike scores by where they stand, and
    either is first then. What is made of equal scores is compared in tests/runtime/evaluation/test_reranking.py.
    """
    draw = np.random.default_rng(20261127)

    def text():
        return " ".join(draw.choice(WORDS.split(), draw.integers(2, 12)))

    found = []
    for number in range(30):
        positive, negative = ([text() for _ in range(count)] for count in draw.integers(1, (5, 10)))
        found.append(Candidates(str(number), text(), positive, negative + negative[: number % 5 == 0]))
    return [*found, Candidates("30", "none", [], ["a"]), Candidates("31", "none", ["a"], [])]


def mteb_task(samples):
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.abstasks.text import reranking

    class Local(reranking.AbsTaskReranking):
        metadata = TaskMetadata(
            name="LocalReranking",
            type="Reranking",
            category="t2t",
            modalities=["text"],
            description="Made for a test.",
            reference=None,
            dataset={"path": "local/none", "revision": "none"},
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="map_at_1000",
        )

        def load_data(self, **_):
            rows = [
                {"query": item.query, "positive": list(item.positive), "negative": list(item.negative)}
                for item in samples
            ]
            self.transform_old_dataset_format({"default": DatasetDict({"test": Dataset.from_list(rows)})})

    reranking.OLD_FORMAT_RERANKING_TASKS.append("LocalReranking")
    return Local()


@pytest.mark.filterwarnings("ignore")
def test_encoder_as_mteb(encoder, samples):
    import mteb

    found = mteb.evaluate(
        MtebEncoder(encoder, "a/b"), mteb_task(samples), cache=None, co2_tracker=False, show_progress_bar=False
    )
    (scores,) = found.task_results[0].scores["test"]
    ours = evaluate_reranking(encoder, samples)
    assert (ours.queries, ours.queries_left_out) == (30, 2)
    assert ours.metrics["map@1000"] == pytest.approx(scores["map_at_1000"], abs=1e-5)  # rounded to five places there
    assert ours.metrics["mrr@10"] == pytest.approx(scores["mrr_at_10"], abs=1e-9)
    assert 0.2 < ours.metrics["map@1000"] < 0.9


def test_reranker_as_flag_embedding(models, reranker, samples):
    """C-MTEB's evaluation of a FlagReranker: its scores, average precision by scikit-learn, the first positive's rank.

    Equal scores, which scikit-learn counts otherwise than mteb, are left out: there each text is there once.
    """
    single = [
        Candidates(item.name, item.query, sorted(set(item.positive)), sorted(set(item.negative) - set(item.positive)))
        for item in samples[:30]
    ]
    single = [item for item in single if item.negative]
    original = FlagReranker(str(models["reranker"]), devices="cpu")
    precisions, reciprocals = [], []
    for item in single:
        relevant = [True] * len(item.positive) + [False] * len(item.negative)
        scores = np.array(original.compute_score([(item.query, text) for text in item.texts()]))
        assert np.diff(np.sort(scores)).min() > 1e-5
        precisions.append(average_precision_score(relevant, scores))
        first = int(np.argmax(np.array(relevant)[np.argsort(-scores)])) + 1
        reciprocals.append(1 / first if first <= 10 else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = evaluate_reranking(reranker, single, truncation="flag_embedding")
    assert ours.metrics["map@1000"] == pytest.approx(np.mean(precisions), abs=1e-9)
    assert ours.metrics["mrr@10"] == pytest.approx(np.mean(reciprocals), abs=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_what_the_page_names_is_in_mteb():
    import mteb

    page = (pages.DOCS / "EVALUATION.md").read_text("utf-8")
    names = set(re.findall(r"MTEB\([a-z]+, v1\)", page))
    counts = {name: len(mteb.get_benchmark(name).tasks) for name in names}
    assert counts == {"MTEB(eng, v1)": 56, "MTEB(cmn, v1)": 31}
    tasks = {task.metadata.name for name in names for task in mteb.get_benchmark(name).tasks}
    assert {"ArguAna", "QuoraRetrieval", "T2Reranking", "MMarcoReranking", "CMedQAv1-reranking"} <= tasks
    assert mteb.get_task("T2Reranking").metadata.dataset["path"] == "mteb/T2Reranking"
    assert mteb.get_task("T2Reranking").metadata.main_score == "map_at_1000"
