"""Chroma's sentence-transformers function, given an exported folder; the collection is found again by a new process."""

import numpy as np
from chromadb import PersistentClient
from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction
from new_process import result_of

DOCUMENTS = ["copy a folder with everything in it", "parse a JSON document", "the weather is fine"]


def test_a_collection(models, encoder, tmp_path):
    function = SentenceTransformerEmbeddingFunction(str(models["exported-minilm"]), trust_remote_code=True)
    collection = PersistentClient(str(tmp_path)).create_collection("texts", embedding_function=function)
    collection.add(ids=["0", "1", "2"], documents=DOCUMENTS)
    np.testing.assert_array_equal(function(DOCUMENTS), encoder.encode(DOCUMENTS))
    stored = collection.get(include=["embeddings"])["embeddings"]  # brought to length one once more
    np.testing.assert_allclose(stored, encoder.encode(DOCUMENTS), atol=1e-7)
    found = result_of(
        """
from chromadb import PersistentClient
found = PersistentClient(folder).get_collection("texts").query(query_texts=["read JSON"], n_results=2)
result = [found["ids"], found["distances"]]
""",
        folder=tmp_path,
    )
    cosines = encoder.encode(DOCUMENTS) @ encoder.encode("read JSON")
    best = np.argsort(-cosines)[:2]
    assert found[0] == [[str(index) for index in best]]
    np.testing.assert_allclose(found[1], [1 - cosines[best]], atol=1e-5)
