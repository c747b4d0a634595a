"""bgert.integrations.txtai beside Encoder, in an index that a new process opens. txtai needs torch, so it is here."""

import new_process
import numpy as np
import pytest
from txtai import Embeddings

import bgert

FACTS = ["Paris is the capital of France.", "Bread is made of flour.", "", "第三"]
METHOD = "bgert.integrations.txtai.BgertVectors"


def test_vectors_are_the_encoders(models, bge):
    """txtai divides by the length once more."""
    embeddings = Embeddings(method=METHOD, path=str(models["exported-bge"]), gpu=False)
    close = {"rtol": 0, "atol": 1e-6}
    np.testing.assert_allclose(embeddings.batchtransform(FACTS, "data"), bge.encode_corpus(FACTS), **close)
    np.testing.assert_allclose(embeddings.batchtransform(FACTS, "query"), bge.encode_queries(FACTS), **close)
    np.testing.assert_allclose(embeddings.transform("capital"), bge.encode_queries("capital"), **close)
    assert np.abs(embeddings.transform("capital", "data") - embeddings.transform("capital")).max() > 0.01


def test_an_index_is_opened_again_in_a_new_process(models, tmp_path):
    embeddings = Embeddings(method=METHOD, path=str(models["exported-bge"]), vectors={"dimensions": 128, "threads": 1})
    embeddings.index(FACTS)
    here = embeddings.search("capital of France", 4)
    embeddings.save(str(tmp_path / "index"))
    code = """
from txtai import Embeddings
embeddings = Embeddings()
embeddings.load(path)
result = [embeddings.search("capital of France", 4), embeddings.config["dimensions"]]
"""
    found, dimensions = new_process.result_of(code, path=tmp_path / "index")
    assert [[number, pytest.approx(score, abs=1e-6)] for number, score in here] == found
    assert dimensions == 128


def test_instructions_stand_once_before_the_text(models, bge):
    options = {"method": METHOD, "path": str(models["exported-bge"])}
    with pytest.warns(bgert.InstructionWarning):
        other = Embeddings(**options, instructions={"query": "query: ", "data": ""})
    np.testing.assert_allclose(other.transform("a", "query"), bge.encode("a", prefix="query: "), rtol=0, atol=1e-6)
    np.testing.assert_allclose(other.transform("a", "data"), bge.encode("a", prefix=""), rtol=0, atol=1e-6)


def test_what_there_is_not_is_refused_by_name(models):
    options = {"method": METHOD, "path": str(models["exported-bge"])}
    for wrong, says in (
        ({"vectors": {"trust_remote_code": True}}, "trust_remote_code"),
        ({"vectors": {"lenght": 3}}, "unknown option"),
        ({"encodeargs": {"normalize_embeddings": True}}, "encodeargs"),
        ({"maxlength": 10_000}, "max_length"),
    ):
        with pytest.raises(ImportError, match="BgertVectors") as caught:  # txtai's word for whatever goes wrong there
            Embeddings(**options, **wrong)
        assert isinstance(caught.value.__cause__, bgert.InvalidOptionError)
        assert says in str(caught.value.__cause__)
    with pytest.raises(bgert.InvalidTextError):
        Embeddings(**options).batchtransform([None])
    with pytest.warns(bgert.TruncationWarning, match="512 tokens"):
        Embeddings(**options).transform("word " * 600)
