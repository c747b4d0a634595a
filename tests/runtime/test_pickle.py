"""Models and tokenizers through pickle and copy, as joblib, Ray and multiprocessing send them."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

from bgert import Encoder, ModelNotFoundError, Reranker, Tokenizer

TEXTS = ["how to copy a file", "北京是首都", "a [SEP] b"]


@pytest.fixture(scope="module")
def folder(write_model, sentence_transformers_files, tmp_path_factory):
    from bgert_export import export

    room = tmp_path_factory.mktemp("pickle")
    export(write_model(room / "checkpoint", files=sentence_transformers_files()), room / "model", verify=False)
    return room / "model"


def test_an_encoder_comes_back_with_its_options(folder):
    encoder = Encoder(folder, threads=1, mode="latency", split_special_tokens=True)
    expected = encoder.encode(TEXTS)
    assert not np.array_equal(expected, Encoder(folder).encode(TEXTS)), "the option has to matter here"
    for again in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder), copy.copy(encoder)):
        assert np.array_equal(again.encode(TEXTS), expected)


def test_a_relative_folder_is_found_from_another_place(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    pickled = pickle.dumps([Encoder(folder.name), Tokenizer(folder.name), Tokenizer.from_folder(folder.name)])
    monkeypatch.chdir(tmp_path)
    encoder, *tokenizers = pickle.loads(pickled)
    assert encoder.encode("a").shape == (64,)
    for tokenizer in (*tokenizers, pickle.loads(pickle.dumps(encoder.tokenizer))):
        assert tokenizer.encode("a file").tolist() == Tokenizer(folder).encode("a file").tolist()


def test_a_method_goes_to_other_processes(folder):
    encoder = Encoder(folder)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows = pool.map(encoder.encode_queries, [TEXTS])
    assert np.array_equal(rows[0], encoder.encode_queries(TEXTS))


def test_a_reranker_comes_back(make_reranker_checkpoint, tmp_path):
    from bgert_export import export

    export(make_reranker_checkpoint(1), tmp_path / "model", verify=False)
    reranker = Reranker(tmp_path / "model")
    assert pickle.loads(pickle.dumps(reranker)).score(("a", "b")) == reranker.score(("a", "b"))
    pickled = pickle.dumps(reranker)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    moved = pickle.loads(pickled)  # opens on first use
    with pytest.raises(ModelNotFoundError, match="model"):
        moved.score(("a", "b"))
