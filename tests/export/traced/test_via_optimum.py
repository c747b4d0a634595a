"""Networks that optimum exports, in an environment of its own: `BGERT_OPTIMUM_PYTHON` is its python."""

import os
import sys

import numpy as np
import pytest
import transformers

import bgert
from bgert.errors import InvalidOptionError
from bgert_export import export
from bgert_export.errors import ExtraNotInstalledError, UnsupportedCheckpointError

PYTHON = os.environ.get("BGERT_OPTIMUM_PYTHON")
needs_optimum = pytest.mark.skipif(PYTHON is None, reason="BGERT_OPTIMUM_PYTHON names no environment with optimum")


@needs_optimum
@pytest.mark.parametrize("model_type", ["albert", "electra", "mpnet", "squeezebert"])
def test_vectors_are_those_of_transformers(make, tmp_path, model_type):
    folder = make(model_type)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=True, via="optimum", optimum_python=PYTHON)
    assert manifest.graphs[0].parity.max_abs_error < 2e-5  # of the transformers here, not of the one that exported
    via = next(choice for choice in manifest.choices if choice.field == "via")
    assert "optimum-onnx" in via.why
    assert f"transformers {transformers.__version__}" not in via.why
    with bgert.Encoder(tmp_path / "out") as encoder:
        np.testing.assert_allclose(np.linalg.norm(encoder.encode(["copy a file", ""]), axis=1), 1, atol=1e-5)


@needs_optimum
def test_control_flow_is_refused(make, tmp_path):
    with pytest.raises(UnsupportedCheckpointError, match="decides while it runs"):
        export(
            make("deberta-v2"), tmp_path / "out", pooling="mean", normalize=True, via="optimum", optimum_python=PYTHON
        )


@needs_optimum
def test_scores_are_those_of_transformers(make, tmp_path):
    folder = make("bert", "ForSequenceClassification")
    manifest = export(folder, tmp_path / "out", via="optimum", optimum_python=PYTHON)
    assert manifest.kind == "reranker"
    assert manifest.graphs[0].parity.max_abs_error < 1e-4


def test_an_environment_without_optimum_says_how_to_make_one(make, tmp_path):
    folder = make("albert")
    with pytest.raises(ExtraNotInstalledError, match="pip install optimum-onnx"):
        export(folder, tmp_path / "out", via="optimum", optimum_python=sys.executable)
    with pytest.raises(ExtraNotInstalledError, match="cannot run /nowhere/python"):
        export(folder, tmp_path / "out", via="optimum", optimum_python="/nowhere/python")


def test_optimum_needs_an_environment(make, tmp_path):
    with pytest.raises(InvalidOptionError, match="--optimum-python"):
        export(make("albert"), tmp_path / "out", via="optimum")
