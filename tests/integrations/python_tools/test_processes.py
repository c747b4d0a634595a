"""Models in other processes: every start method, joblib's workers, and functions that cloudpickle carries there."""

import json
import multiprocessing
import pickle
import subprocess
import sys

import cloudpickle
import joblib
import numpy as np
import pytest

import bgert

TEXTS = [f"text number {number}" for number in range(8)]
PAIRS = [("which number", text) for text in TEXTS]


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_pools_of_every_start_method(encoder, reranker, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        vectors = pool.map(encoder.encode, [TEXTS[:4], TEXTS[4:]])
        scores = pool.map(reranker.score, [PAIRS[:4], PAIRS[4:]])
    assert np.array_equal(np.concatenate(vectors), encoder.encode(TEXTS))
    assert np.array_equal(np.concatenate(scores), reranker.score(PAIRS))
    assert [rows.info.device for rows in vectors] == ["cpu", "cpu"]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_joblib(encoder, backend):
    blocks = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(encoder.encode_corpus)(part, dtype="float16") for part in (TEXTS[:4], TEXTS[4:])
    )
    assert np.array_equal(np.concatenate(blocks), encoder.encode_corpus(TEXTS, dtype="float16"))
    assert all(isinstance(block, bgert.Embeddings) and block.info.tokens for block in blocks)


def test_joblib_files_keep_model_and_info(encoder, tmp_path):
    joblib.dump({"model": encoder, "rows": encoder.encode(TEXTS)}, tmp_path / "all.joblib")
    back = joblib.load(tmp_path / "all.joblib")
    assert np.array_equal(back["model"].encode(TEXTS), back["rows"])


def test_cloudpickle_carries_a_function_that_closes_over_models(encoder, reranker, tmp_path):
    tokenizer = encoder.tokenizer

    def both(texts):
        best = reranker.rank(texts[0], texts)[0][0]
        return encoder.encode(texts).tolist(), best, tokenizer.count(texts).tolist()

    (tmp_path / "function.pickle").write_bytes(cloudpickle.dumps(both))
    code = (
        "import json, pickle, sys\n"
        "both = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(json.dumps(both(json.loads(sys.argv[2]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "function.pickle"), json.dumps(TEXTS)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    there = json.loads(done.stdout)
    here = json.loads(json.dumps(both(TEXTS)))
    assert there == here


def test_options_travel(models):
    given = bgert.Encoder(
        models["exported-minilm"], threads=1, mode="latency", max_length=300, split_special_tokens=True
    )
    there = pickle.loads(pickle.dumps(given))
    assert (there.max_length, there.split_special_tokens) == (300, True)
    long = "word and [SEP] " * 90
    with pytest.warns(bgert.TruncationWarning, match="300 tokens"):
        expected = given.encode(long)
    with pytest.warns(bgert.TruncationWarning, match="300 tokens"):
        assert np.array_equal(there.encode(long), expected)
