"""Encoder and reranker on a small collection, against rankings made the long way; and the command."""

import json

import numpy as np
import pytest

from bgert import Encoder, InvalidOptionError, Reranker, TruncationWarning
from bgert.commands.main import main
from bgert.evaluation import Collection, CollectionError, evaluate, load_collection, ndcg, recall, reciprocal_rank
from bgert_export import export


@pytest.fixture
def collection(collection_folder):
    return load_collection(collection_folder)


def ranked(collection, queries, documents):
    """Query id to document ids by a full sort of cosines."""
    queries, documents = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, documents))
    ids = collection.document_ids
    return {
        query: [ids[index] for index in np.argsort(-row)]
        for query, row in zip(collection.queries, np.asarray(queries @ documents.T), strict=True)
    }


def ranked_by(encoder, collection):
    return ranked(
        collection,
        encoder.encode_queries(list(collection.queries.values())),
        encoder.encode_corpus(list(collection.documents)),
    )


def figures(ranking, judgments):
    return {
        "ndcg@10": ndcg(ranking, judgments, 10),
        "recall@100": recall(ranking, judgments, 100),
        "mrr@10": reciprocal_rank(ranking, judgments, 10),
    }


def test_encoder_alone(encoder, collection):
    result = evaluate(encoder, collection)
    rankings = ranked_by(encoder, collection)
    expected = {query: figures(rankings[query], collection.qrels[query]) for query in ("q1", "q2")}
    assert result.per_query == expected
    assert result.metrics == pytest.approx(
        {name: (expected["q1"][name] + expected["q2"][name]) / 2 for name in expected["q1"]}, abs=1e-12
    )
    assert (result.documents, result.queries, result.queries_without_relevant, result.queries_unjudged) == (6, 2, 1, 1)
    assert (result.reranker, result.reranked_metrics, result.rerank_top_k, result.truncated_pairs) == (None,) * 4
    assert result.encoder["precision"] == "fp32"
    assert json.loads(json.dumps(result.as_dict()))["metrics"] == result.metrics


def test_equal_figures_from_sentence_transformers(encoder, demo_checkpoint, collection):
    import sentence_transformers

    model = sentence_transformers.SentenceTransformer(str(demo_checkpoint), device="cpu")
    queries, documents = (model.encode(list(texts)) for texts in (collection.queries.values(), collection.documents))
    rankings = ranked(collection, queries, documents)
    names = ["ndcg@1", "ndcg@3", "recall@2", "mrr@6"]
    per_query = evaluate(encoder, collection, metrics=names).per_query
    for query, values in per_query.items():
        ranking, judgments = rankings[query], collection.qrels[query]
        assert values == {
            "ndcg@1": ndcg(ranking, judgments, 1),
            "ndcg@3": ndcg(ranking, judgments, 3),
            "recall@2": recall(ranking, judgments, 2),
            "mrr@6": reciprocal_rank(ranking, judgments, 6),
        }


def test_identical_ids(encoder, collection):
    names = ["recall@1", "recall@5", "recall@6"]
    qrels = {"q1": {"q1": 1, "d4": 1}}
    collection = Collection(collection.document_ids, collection.documents, collection.queries, qrels)
    order = ranked_by(encoder, collection)["q1"]
    kept = evaluate(encoder, collection, metrics=names)
    assert kept.per_query["q1"]["recall@6"] == 1
    left_out = evaluate(encoder, collection, metrics=names, ignore_identical_ids=True)
    order.remove("q1")
    assert left_out.per_query["q1"] == {name: recall(order, qrels["q1"], int(name[-1])) for name in names}
    assert left_out.per_query["q1"]["recall@5"] == 0.5
    assert left_out.ignore_identical_ids
    first = {"q": collection.documents[4]}
    collection = Collection([*"abcdq", "f"], collection.documents, first, {"q": {"a": 1}})
    assert ranked_by(encoder, collection)["q"][:2] == ["q", "a"]
    assert evaluate(encoder, collection, metrics=["recall@1"]).metrics["recall@1"] == 0
    assert evaluate(encoder, collection, metrics=["recall@1"], ignore_identical_ids=True).metrics["recall@1"] == 1


@pytest.mark.parametrize("normalize", [True, False])
def test_prompts_and_unnormalised_models(make_checkpoint, sentence_transformers_files, collection, tmp_path, normalize):
    files = sentence_transformers_files(normalize=normalize, prompts={"query": "find the file: ", "document": "text: "})
    export(make_checkpoint(files=files), tmp_path / "model", verify=False)
    encoder = Encoder(tmp_path / "model")
    assert encoder.manifest.normalize == normalize
    assert encoder.manifest.prompts == {"query": "find the file: ", "document": "text: "}
    names = [f"{name}@{k}" for name in ("ndcg", "recall") for k in range(1, 7)]
    rankings = ranked(
        collection,
        encoder.encode(["find the file: " + text for text in collection.queries.values()]),
        encoder.encode(["text: " + text for text in collection.documents]),
    )
    for query, values in evaluate(encoder, collection, metrics=names).per_query.items():
        for name, value in values.items():
            function = ndcg if name.startswith("ndcg") else recall
            assert value == function(rankings[query], collection.qrels[query], int(name[-1]))


@pytest.mark.parametrize("top_k", [1, 3, 100])
def test_reranker(encoder, reranker, collection, top_k):
    names = [f"{name}@{k}" for name in ("ndcg", "recall", "mrr") for k in range(1, 7)]
    functions = {"ndcg": ndcg, "recall": recall, "mrr": reciprocal_rank}
    result = evaluate(encoder, collection, reranker=reranker, rerank_top_k=top_k, metrics=names)
    assert result.per_query == evaluate(encoder, collection, metrics=names).per_query
    texts = dict(zip(collection.document_ids, collection.documents, strict=True))
    for query, ranking in ranked_by(encoder, collection).items():
        if query not in result.per_query:
            continue
        scores = reranker.score([(collection.queries[query], texts[name]) for name in ranking[:top_k]])
        ranking[:top_k] = [ranking[index] for index in np.argsort(-scores)]
        assert result.reranked_per_query[query] == {
            name: functions[name.split("@")[0]](ranking, collection.qrels[query], int(name[-1])) for name in names
        }
    assert result.rerank_top_k == top_k
    assert result.truncated_pairs == 0
    if top_k > 1:
        assert result.reranked_per_query != result.per_query


def test_many_queries_in_several_calls_of_the_reranker(encoder, reranker, monkeypatch):
    monkeypatch.setattr("bgert.evaluation.retrieval.WINDOW", 5)
    texts = ["copy a file", "read a list", "the weather", "a number", "copy a folder"]
    queries = {f"q{number}": f"{text} now" for number, text in enumerate(texts)}
    qrels = {query: {f"d{number}": 1} for number, query in enumerate(queries)}
    collection = Collection([f"d{number}" for number in range(5)], texts, queries, qrels)
    whole = [reranker.score([(query, text) for text in texts]) for query in queries.values()]
    result = evaluate(encoder, collection, reranker=reranker, metrics=["mrr@5"], rerank_top_k=5)
    ranks = [1 + int((scores > scores[number]).sum()) for number, scores in enumerate(whole)]
    assert result.reranked_metrics["mrr@5"] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    two = evaluate(encoder, collection, reranker=reranker, metrics=["mrr@5"], rerank_top_k=2)
    assert two.reranked_metrics["mrr@5"] > 0


def test_equal_scores_put_the_larger_id_first(encoder, reranker):
    texts = ["the same text", "the same text", "the same text"]
    collection = Collection(["b", "c", "a"], texts, {"q": "text"}, {"q": {"c": 1}})
    result = evaluate(encoder, collection, reranker=reranker, metrics=["ndcg@1"])
    assert result.metrics == result.reranked_metrics == {"ndcg@1": 1.0}


def test_cut_texts_are_counted(encoder, reranker):
    long = "copy the file " * 200
    collection = Collection(["a", "b"], [long, "short"], {"q": "file", "p": long}, {"q": {"b": 1}, "p": {"a": 1}})
    with pytest.warns(TruncationWarning):
        result = evaluate(encoder, collection, reranker=reranker)
    assert (result.truncated_documents, result.truncated_queries, result.truncated_pairs) == (1, 1, 3)


def test_refusals(encoder, reranker, collection, make_reranker_checkpoint, tmp_path):
    with pytest.raises(InvalidOptionError, match="unknown metric"):
        evaluate(encoder, collection, metrics=["precision@10"])
    with pytest.raises(InvalidOptionError, match="metrics is empty"):
        evaluate(encoder, collection, metrics=[])
    with pytest.raises(InvalidOptionError, match="rerank_top_k"):
        evaluate(encoder, collection, reranker=reranker, rerank_top_k=0)
    export(make_reranker_checkpoint(num_labels=3), tmp_path / "labels", verify=False)
    with pytest.raises(InvalidOptionError, match="3 scores a pair"):
        evaluate(encoder, collection, reranker=Reranker(tmp_path / "labels"))
    nothing = Collection(collection.document_ids, collection.documents, collection.queries, {"q1": {"d1": 0}})
    with pytest.raises(CollectionError, match="no query has a relevant document"):
        evaluate(encoder, nothing)


def test_command(demo_folder, encoder, reranker, reranker_folder, collection, collection_folder, tmp_path, capsys):
    argv = ["eval", str(demo_folder), "--data", str(collection_folder)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    expected = evaluate(encoder, collection)
    assert f"{expected.metrics['ndcg@10']:.4f}" in out
    assert "6 documents, 2 queries (1 without a relevant document and 1 unjudged left out)" in out
    file = tmp_path / "result.json"
    argv += ["--reranker", str(reranker_folder), "--top-k", "2", "--json", str(file), "--precision", "fp32"]
    assert main(argv) == 0
    assert "+ reranker of the best 2, cpu fp32" in capsys.readouterr().out
    expected = evaluate(encoder, collection, reranker=reranker, rerank_top_k=2).as_dict()
    names = {"model": str(demo_folder), "reranker_model": str(reranker_folder), "data": str(collection_folder)}
    assert json.loads(file.read_text()) == names | expected


@pytest.mark.parametrize(
    "options",
    [
        ["--top-k", "5"],
        ["--reranker-precision", "fp32"],
        ["--reranker", "{folder}"],
        ["--precision", "int3"],
        ["--qrels", "/none"],
        ["--data", "/none"],
        ["--json", "/no/such/folder/x.json"],
    ],
)
def test_command_refusals(demo_folder, collection_folder, capsys, options):
    options = [option.format(folder=demo_folder) for option in options]
    assert main(["eval", str(demo_folder), "--data", str(collection_folder), *options]) == 2
    assert capsys.readouterr().err.startswith("bgert: error: ")
