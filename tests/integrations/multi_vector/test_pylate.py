"""ColBERT's checkpoints beside PyLate, which trains and searches with them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pylate import models, scores

import bgert
from bgert_export import export

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import multi_vector_checkpoints as checkpoints

pytestmark = pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")

FORMS = {
    "colbert-ai": (checkpoints.write_colbert_ai, {}),
    "colbert-ai, attended": (checkpoints.write_colbert_ai, {"attend_to_mask_tokens": True}),
    "pylate": (checkpoints.write_pylate, {}),
    "attended": (checkpoints.write_pylate, {"attend_to_expansion_tokens": True}),
    "not expanded": (checkpoints.write_pylate, {"do_query_expansion": False, "skiplist_words": ["the", "."]}),
    "no markers": (checkpoints.write_pylate, {"query_prefix": "", "document_prefix": ""}),
    "two layers": (checkpoints.write_pylate, {"layers": (96, 32), "residual": True, "activation": "activation.GELU"}),
    "ModernBERT": (
        checkpoints.write_pylate,
        {"model_type": "modernbert", "local_attention": 32, "global_attn_every_n_layers": 2},
    ),
    "RoBERTa": (checkpoints.write_pylate, {"model_type": "roberta"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_vectors_and_scores_are_those_of_pylate(form, tmp_path):
    write, options = FORMS[form]
    folder = write(tmp_path / "checkpoint", **options)
    export(folder, tmp_path / "out")
    encoder, peer = bgert.Encoder(tmp_path / "out"), models.ColBERT(str(folder), device="cpu")
    found, expected = [], []
    for role in ("query", "document"):
        found.append(encoder.encode_outputs(checkpoints.TEXTS, prompt=role).multi_vector)
        expected.append(peer.encode(checkpoints.TEXTS, is_query=role == "query"))
        assert [rows.shape for rows in found[-1]] == [rows.shape for rows in expected[-1]]
        assert max(np.abs(a - b).max(initial=0) for a, b in zip(found[-1], expected[-1], strict=True)) < 2e-5
    by_peer = [
        [float(scores.colbert_scores(query[None], document[None])[0, 0]) for document in expected[1]]
        for query in expected[0]
    ]
    np.testing.assert_allclose(encoder.similarity(*found), by_peer, rtol=1e-5)
    assert bgert.outputs.max_sim(found[0][0], found[1][3]) == pytest.approx(by_peer[0][3], rel=1e-5)


def test_what_pylate_makes_and_saves(tmp_path):
    """A new model of a network: PyLate adds the markers and draws the layer."""
    folder = checkpoints.write_network(tmp_path / "network")
    peer = models.ColBERT(str(folder), device="cpu", query_length=16, document_length=30)
    peer.save(str(tmp_path / "saved"), create_model_card=False)
    export(tmp_path / "saved", tmp_path / "out")
    encoder, again = bgert.Encoder(tmp_path / "out"), models.ColBERT(str(tmp_path / "saved"), device="cpu")
    for role in ("query", "document"):
        found = encoder.encode_outputs(checkpoints.TEXTS, prompt=role).multi_vector
        for model in (peer, again):
            expected = model.encode(checkpoints.TEXTS, is_query=role == "query")
            assert [rows.shape for rows in found] == [rows.shape for rows in expected]
            assert max(np.abs(a - b).max(initial=0) for a, b in zip(found, expected, strict=True)) < 2e-5
