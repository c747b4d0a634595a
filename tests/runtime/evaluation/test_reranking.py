"""Candidates to order: mteb's figures, encoder and reranker the long way, files, and the command."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bgert import InvalidOptionError, Reranker, TruncationWarning
from bgert.commands.main import main
from bgert.errors import InputFileError
from bgert.evaluation import Candidates, CollectionError, average_precision, evaluate_reranking, load_candidates
from bgert.evaluation import reranking as module
from bgert_export import export

sys.path.insert(0, str(Path(__file__).parent))
import golden_reranking as golden

sys.path.pop(0)

SAMPLES = [
    {"query": "how do I copy a folder", "positive": ["copy a folder"], "negative": ["read a list", "the weather"]},
    {"query": "read JSON", "positive": ["open a file and read it", "read a list"], "negative": ["copy a folder"]},
    {"query": "nothing answers this", "positive": [], "negative": ["a", "b"]},
    {"query": "everything answers this", "positive": ["a"], "negative": []},
    {"query": "read JSON", "positive": ["the weather"], "negative": ["the weather", "name of a class", "open"]},
]
FLAG_EMBEDDING = [
    {"query": row["query"], "pos": row["positive"], "neg": row["negative"], "prompt": "unused", "id": number}
    for number, row in enumerate(SAMPLES)
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def candidates(tmp_path):
    return load_candidates(write(tmp_path / "samples.jsonl", SAMPLES))


class Scripted:
    """A reranker that gives the scores it was told, in the order of the pairs."""

    kind, num_labels, device, precision, engine = "reranker", 1, "cpu", "fp32", "none"
    manifest = SimpleNamespace(source={})

    def __init__(self, cases):
        self.left = [score for positive, negative in cases if positive and negative for score in positive + negative]

    def score(self, pairs, **_):
        scores = np.array(self.left[: len(pairs)], np.float32).view(WithInfo)
        del self.left[: len(pairs)]
        return scores


class WithInfo(np.ndarray):
    info = SimpleNamespace(n_truncated=0)


@pytest.mark.parametrize("window", [16_384, 50])
def test_equals_mteb(window, monkeypatch):
    monkeypatch.setattr(module, "WINDOW", window)
    cases = golden.random_case()
    committed = json.loads(golden.GOLDEN.read_text())
    assert committed["seed"] == golden.SEED
    samples = [
        Candidates(str(number), "", [""] * len(positive), [""] * len(negative))
        for number, (positive, negative) in enumerate(cases)
    ]
    names = [f"{name}@{k}" for name in ("map", "mrr") for k in (1, 3, 10, 1000)]
    result = evaluate_reranking(Scripted(cases), samples, metrics=names)
    assert result.per_query.keys() == committed["per_query"].keys()
    assert 60 < result.queries < len(cases) == result.queries + result.queries_left_out
    for number, values in committed["per_query"].items():
        assert result.per_query[number] == pytest.approx(values, abs=1e-12, rel=0), number
    for name in names:
        assert result.metrics[name] == pytest.approx(np.mean([row[name] for row in committed["per_query"].values()]))


def by_definition(scores, positives):
    """AP and RR@10 with ties against the positive, from the places of the positives."""
    places = sorted(
        sum(other > scores[at] or (other == scores[at] and number >= positives) for number, other in enumerate(scores))
        + sum(other == scores[at] for other in scores[:at])
        + 1
        for at in range(positives)
    )
    return np.mean([(number + 1) / place for number, place in enumerate(places)]), 1 / places[0] * (places[0] <= 10)


def expected(score, kept=(0, 1, 4)):
    figures = {}
    for number in kept:
        row = SAMPLES[number]
        ap, rr = by_definition(list(score(row["query"], row["positive"] + row["negative"])), len(row["positive"]))
        figures[str(number + 1)] = {"map@1000": pytest.approx(ap), "mrr@10": pytest.approx(rr)}
    return figures


def test_encoder(encoder, candidates):
    cosines = lambda query, texts: np.float32(  # noqa: E731
        (encoder.encode_corpus(texts) * np.float64(encoder.encode_queries(query))).sum(axis=1)
    )
    result = evaluate_reranking(encoder, candidates)
    assert result.per_query == expected(cosines)
    assert (result.queries, result.queries_left_out, result.candidates) == (3, 2, 10)
    assert (result.model["kind"], result.model["precision"], result.truncation) == ("encoder", "fp32", None)
    assert (result.truncated_queries, result.truncated_candidates) == (0, 0)


def test_the_same_text_of_both_kinds_counts_as_wrong(encoder, reranker):
    sample = Candidates("1", "read a file", ["open the file"] * 2, ["open the file", "today"])
    for model in (encoder, reranker):
        # The negative of three equal scores is first, so positives are second and third (or third and fourth).
        first = evaluate_reranking(model, [sample]).metrics["mrr@10"]
        assert first in (1 / 2, 1 / 3)


def test_prompts_and_vectors_of_any_length(write_model, sentence_transformers_files, tmp_path, candidates):
    from bgert import Encoder

    files = sentence_transformers_files(normalize=False, prompts={"query": "find the file: ", "document": "text: "})
    export(write_model(tmp_path / "checkpoint", files=files), tmp_path / "model", verify=False)
    model = Encoder(tmp_path / "model")

    def cosines(query, texts):
        query, texts = (np.float64(rows) for rows in (model.encode_queries(query), model.encode_corpus(texts)))
        return np.float32(texts @ query / np.linalg.norm(query) / np.linalg.norm(texts, axis=1))

    unlike = expected(cosines, kept=(0, 1))
    found = evaluate_reranking(model, candidates).per_query
    assert {name: found[name] for name in unlike} == unlike


def test_reranker(reranker, candidates):
    result = evaluate_reranking(reranker, candidates)
    assert result.per_query == expected(lambda query, texts: reranker.score([(query, text) for text in texts]))
    assert (result.model["kind"], result.truncation, result.truncated_queries) == ("reranker", "longest_first", None)


def test_cut_texts_are_counted(encoder, reranker):
    long = "a long text about nothing at all " * 100
    samples = [Candidates("1", long, ["a", long], ["b", long, long]), Candidates("2", "a", ["a"], ["b"])]
    with pytest.warns(TruncationWarning):
        result = evaluate_reranking(encoder, samples)
    assert (result.truncated_queries, result.truncated_candidates) == (1, 3)
    with pytest.warns(TruncationWarning):
        result = evaluate_reranking(reranker, samples, truncation="flag_embedding")
    assert (result.truncated_candidates, result.truncation) == (5, "flag_embedding")


def test_average_precision_by_hand():
    ranking, judgments = ["x", "a", "c", "b", "d"], {"a": 2, "b": 1, "c": 0, "z": 1, "d": -1}
    assert average_precision(ranking, judgments, 10) == pytest.approx((1 / 2 + 2 / 4) / 3)
    assert average_precision(ranking, judgments, 3) == pytest.approx(1 / 2 / 3)
    assert average_precision(ranking, {"x": 0}, 10) == 0


def test_refusals(encoder, candidates, make_reranker_checkpoint, tmp_path):
    with pytest.raises(CollectionError, match="a positive and a negative"):
        evaluate_reranking(encoder, candidates[2:4])
    for metrics, match in (((), "empty"), (("map",), "unknown metric 'map'"), (("accuracy@1",), "accuracy")):
        with pytest.raises(InvalidOptionError, match=match):
            evaluate_reranking(encoder, candidates, metrics=metrics)
    export(make_reranker_checkpoint(num_labels=2), tmp_path / "labels", verify=False)
    with pytest.raises(InvalidOptionError, match="2 scores a pair"):
        evaluate_reranking(Reranker(tmp_path / "labels"), candidates)


def test_both_formats_are_the_same(tmp_path):
    other = write(tmp_path / "flag.jsonl", FLAG_EMBEDDING)
    other.write_text("\n\n" + other.read_text())  # blank lines count as lines
    ours, theirs = load_candidates(write(tmp_path / "mteb.jsonl", SAMPLES)), load_candidates(other)
    assert [(item.query, item.positive, item.negative) for item in ours] == [
        (item.query, item.positive, item.negative) for item in theirs
    ]
    assert [int(item.name) + 2 for item in ours] == [int(item.name) for item in theirs]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("{", ":2: not JSON"),
        ("[]", ":2: not a JSON object"),
        ('{"query": "a"}', ":2: neither format's fields"),
        ('{"query": "a", "pos": [], "negative": []}', ":2: fields of both"),
        ('{"query": "a", "pos": ["b"]}', ":2: no list of strings in field 'neg'"),
        ('{"query": "a", "positive": "b", "negative": []}', "list of strings in field 'positive'"),
        ('{"query": "a", "pos": ["b", null], "neg": []}', "list of strings in field 'pos'"),
        ('{"query": ["a"], "pos": ["b"], "neg": []}', "no string in field 'query'"),
        ('{"pos": ["b"], "neg": []}', "no string in field 'query'"),
        ('{"query": "a", "pos": ["\\ud800"], "neg": []}', "surrogate in field 'pos'"),
    ],
)
def test_damaged_files(tmp_path, line, match):
    path = tmp_path / "samples.jsonl"
    path.write_text(f"{json.dumps(SAMPLES[0])}\n{line}\n")
    with pytest.raises(CollectionError, match=match):
        load_candidates(path)


def test_no_files(tmp_path):
    with pytest.raises(InputFileError, match="no such file"):
        load_candidates(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CollectionError, match="no queries"):
        load_candidates(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"query": "\xff"}\n')
    with pytest.raises(InputFileError, match="UTF-8"):
        load_candidates(tmp_path / "bytes.jsonl")


def test_command(demo_folder, reranker_folder, encoder, reranker, candidates, tmp_path, capsys):
    data, out = write(tmp_path / "flag.jsonl", FLAG_EMBEDDING), tmp_path / "result.json"
    argv = ["eval", str(demo_folder), "--data", str(data), "--reranker", str(reranker_folder), "--json", str(out)]
    assert main([*argv, "--truncation", "only_second"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "3 queries (2 without a positive or a negative left out), 10 candidates"
    expected = [evaluate_reranking(encoder, candidates), evaluate_reranking(reranker, candidates)]
    for line, result in zip(printed.splitlines()[2:4], expected, strict=True):
        assert line.startswith(f"{result.model['kind']}, cpu fp32")
        assert line.split()[-2:] == [f"{value:.4f}" for value in result.metrics.values()]
    assert printed.splitlines()[4].endswith("0 documents, 0 queries, 0 pairs (only_second)")
    body = json.loads(out.read_text())
    assert body["data"] == str(data)
    assert [run["model"] for run in body["runs"]] != [str(demo_folder), str(reranker_folder)]
    assert [run["per_query"] for run in body["runs"]] == [result.per_query for result in expected]
    assert main(["eval", str(reranker_folder), "--data", str(data)]) == 0
    assert "reranker, cpu fp32" in capsys.readouterr().out.splitlines()[2]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--qrels", "x"], "--qrels"),
        (["--top-k", "3", "--reranker", "x"], "--top-k"),
        (["--ignore-identical-ids"], "collection"),
        (["--truncation", "only_first"], "--truncation is for a reranker"),
    ],
)
def test_command_refuses(demo_folder, tmp_path, capsys, options, match):
    data = write(tmp_path / "samples.jsonl", SAMPLES)
    assert main(["eval", str(demo_folder), "--data", str(data), *options]) == 2
    assert match in capsys.readouterr().err


def test_a_collection_takes_no_truncation(demo_folder, collection_folder, capsys):
    argv = ["eval", str(demo_folder), "--data", str(collection_folder), "--truncation", "only_first"]
    assert main(argv) == 2
    assert "--truncation is for a file of candidates" in capsys.readouterr().err
