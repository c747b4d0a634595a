"""What the stages for Arrow, Ray and Spark say where these are not installed. More: tests/integrations/scale_out."""

import sys

import pytest

from bgert import EngineNotInstalledError
from bgert.integrations import arrow, ray, spark


@pytest.mark.parametrize(
    ("missing", "extra", "call"),
    [
        ("pyarrow", "arrow", lambda: arrow.check_texts("text", None)),
        ("ray", "ray", lambda: ray.Embed("folder")),
        ("ray.data", "ray", lambda: ray.embed_parquet("in", "out", "folder", id_column="id")),
        ("pyspark.sql.types", "spark", lambda: spark.embed("folder").schema(None)),
    ],
)
def test_a_missing_library_is_named_with_its_extra(missing, extra, call, monkeypatch):
    monkeypatch.setitem(sys.modules, missing.partition(".")[0], None)
    with pytest.raises(EngineNotInstalledError, match=f"needs {missing.partition('.')[0]}.*extra `{extra}`"):
        call()
