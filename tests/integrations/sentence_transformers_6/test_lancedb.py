"""LanceDB's sentence-transformers function, given an exported folder; the table is searched by a new process."""

import lancedb
import numpy as np
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from new_process import result_of

DOCUMENTS = ["copy a folder with everything in it", "parse a JSON document", "the weather is fine"]


def test_a_table(models, encoder, tmp_path):
    function = get_registry().get("sentence-transformers").create(name=str(models["exported-minilm"]), device="cpu")

    class Line(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = lancedb.connect(str(tmp_path)).create_table("lines", schema=Line)
    table.add([{"text": text} for text in DOCUMENTS])
    stored = table.to_arrow().to_pydict()
    assert stored["text"] == DOCUMENTS
    np.testing.assert_allclose(np.float32(stored["vector"]), encoder.encode(DOCUMENTS), atol=1e-7)
    found = result_of(
        """
import lancedb
result = [row["text"] for row in lancedb.connect(folder).open_table("lines").search("read JSON").limit(2).to_list()]
""",
        folder=tmp_path,
    )
    cosines = encoder.encode(DOCUMENTS) @ encoder.encode("read JSON")
    assert found == [DOCUMENTS[index] for index in np.argsort(-cosines)[:2]]
