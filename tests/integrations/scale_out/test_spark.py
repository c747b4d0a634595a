"""Spark: the example of docs/SCALE.md with a worker and a driver that are killed, and Spark's types."""

import os
import shutil
import signal

import numpy as np
import pyarrow as pa
import pytest

import bgert
from bgert.integrations import spark as bgert_spark

pytestmark = pytest.mark.skipif(
    not (shutil.which("java") or "JAVA_HOME" in os.environ), reason="Spark needs Java, and there is none here"
)
BUILDER = """SparkSession.builder.master("local[2,4]").config("spark.ui.enabled", "false").config(
    "spark.driver.memory", "512m").config("spark.driver.bindAddress", "127.0.0.1").config(
    "spark.driver.host", "127.0.0.1").config("spark.sql.execution.arrow.maxRecordsPerBatch", "16")"""


def test_a_killed_driver_leaves_nothing_behind_and_a_killed_worker_loses_nothing(example, program, check, tmp_path):
    code = example("spark", **{"SparkSession.builder": BUILDER})
    target = tmp_path / "vectors"
    with program(code) as driver:
        driver.wait_for(lambda: list(target.rglob("part-*.parquet")))
    assert not (target / "_SUCCESS").exists()
    assert not list(target.glob("*.parquet"))

    with program(code) as driver:
        old = set(target.rglob("part-*.parquet"))
        driver.wait_for(lambda: set(target.rglob("part-*.parquet")) - old)
        daemon = driver.below(r"pyspark[./]daemon")
        os.kill(max(daemon), signal.SIGKILL)  # the oldest is their parent
        printed = driver.end()
    assert "Lost task" in printed
    assert (target / "_SUCCESS").exists()
    check(target, pa.list_(pa.field("element", pa.float32(), nullable=False)))


@pytest.fixture(scope="module")
def session():
    from pyspark.sql import SparkSession  # noqa: F401 - of the line below

    found = eval(BUILDER).config("spark.task.cpus", "2").getOrCreate()
    yield found
    found.stop()


def test_types_and_threads(session, models, encoder, reranker):
    folder, texts = models["exported-minilm"], ["copy a file", "b", "c"]
    frame = session.createDataFrame([(i, text) for i, text in enumerate(texts)], "id int, text string").coalesce(1)
    for dtype, kind in {"float32": "array<float>", "int8": "array<tinyint>", "ubinary": "binary"}.items():
        stage = bgert_spark.embed(folder, dtype=dtype, truncated="cut", max_length=4)
        schema = stage.schema(frame)
        assert schema.simpleString() == f"struct<id:int,text:string,embedding:{kind},cut:boolean>"
        rows = frame.mapInArrow(stage, schema).sort("id").collect()
        wanted = encoder.encode_corpus(texts, dtype=dtype, max_length=4)
        found = [np.frombuffer(row.embedding, np.uint8) if dtype == "ubinary" else row.embedding for row in rows]
        np.testing.assert_array_equal(np.array(found, wanted.dtype), wanted)
        assert [row.cut for row in rows] == wanted.info.truncated.tolist() == [True, False, False]
    stage = bgert_spark.score(models["exported-reranker"], query="text", document="text")
    scores = frame.mapInArrow(stage, stage.schema(frame)).sort("id").collect()
    np.testing.assert_array_equal([row.score for row in scores], reranker.score([(text, text) for text in texts]))

    def look(batches):
        for _ in batches:
            options = bgert_spark._assigned()
            yield pa.RecordBatch.from_pydict({"threads": [options["threads"]], "device": [options["device"]]})

    (row,) = frame.mapInArrow(look, "threads long, device string").collect()
    assert (row.threads, row.device) == (2, "cpu")


def test_refusals(session, models):
    with pytest.raises(bgert.InvalidOptionError, match="no 16-bit floats"):
        bgert_spark.embed(models["exported-minilm"], dtype="float16")
    frame = session.createDataFrame([(1, "a")], "id int, embedding string")
    with pytest.raises(bgert.InvalidOptionError, match="no column 'text'"):
        bgert_spark.embed(models["exported-minilm"]).schema(frame)
    with pytest.raises(bgert.InvalidOptionError, match="'embedding' already"):
        bgert_spark.embed(models["exported-minilm"], column="embedding").schema(frame)
