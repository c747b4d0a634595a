"""txtai, given an exported folder as its sentence-transformers model; the index is found again by a new process."""

import numpy as np
from new_process import result_of
from txtai import Embeddings

DOCUMENTS = ["copy a folder with everything in it", "parse a JSON document", "the weather is fine"]


def test_an_index(models, tmp_path):
    import bgert

    encoder = bgert.Encoder(models["exported-bge"])
    embeddings = Embeddings(
        path=str(models["exported-bge"]),
        method="sentence-transformers",
        gpu=False,
        content=False,
        vectors={"trust_remote_code": True},
    )
    embeddings.index(DOCUMENTS)
    for kind, expected in ("data", encoder.encode_corpus(DOCUMENTS)), ("query", encoder.encode_queries(DOCUMENTS)):
        found = embeddings.batchtransform(DOCUMENTS, kind)  # brought to length one once more
        np.testing.assert_allclose(found, expected, atol=2e-7)
    embeddings.save(str(tmp_path / "index"))
    code = """
from txtai import Embeddings
embeddings = Embeddings()
embeddings.load(folder)
result = embeddings.search("read JSON", 2)
"""
    cosines = encoder.encode_corpus(DOCUMENTS) @ encoder.encode_queries("read JSON")
    found = result_of(code, folder=tmp_path / "index")
    assert [index for index, _ in found] == np.argsort(-cosines)[:2].tolist()
    np.testing.assert_allclose([score for _, score in found], np.sort(cosines)[::-1][:2], atol=1e-5)
