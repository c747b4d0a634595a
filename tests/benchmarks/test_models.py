"""Arithmetic of a model, and the list of models and peers."""

from types import SimpleNamespace

import pytest

import models
import peer_list
import random_checkpoint
from peer_environment import REQUIREMENTS

SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "vocab_size": 200,
}
SMALL |= {"dim": 64, "n_layers": 4, "n_heads": 4, "hidden_dim": 96, "embedding_size": 64}


def test_flop_by_hand():
    shape = SimpleNamespace(hidden_size=4, intermediate_size=16, num_hidden_layers=2, gated=False)
    shape.window_of = lambda layer: None
    matrices = 2 * (4 * 4 * 4 + 2 * 4 * 16) * (3 + 5)
    attention = 4 * 4 * (3 * 3 + 5 * 5)
    assert models.flop(shape, [3, 5]) == 2 * (matrices + attention)
    shape.gated, shape.window_of = True, lambda layer: 1 if layer else None  # the second layer sees three tokens
    matrices += 2 * 4 * 16 * (3 + 5)
    assert models.flop(shape, [3, 5]) == 2 * matrices + attention + 4 * 4 * (3 * 3 + 5 * 3)


@pytest.mark.parametrize("name", random_checkpoint.PUBLISHED)
def test_checkpoints_have_the_names_of_their_families(tmp_path, monkeypatch, name):
    """Read back as any checkpoint is, several matrices in one included."""
    from bgert_export.checkpoint import Checkpoint
    from bgert_export.source import Source

    published = random_checkpoint.PUBLISHED[name]
    monkeypatch.setitem(
        random_checkpoint.PUBLISHED, name, published | {key: SMALL[key] for key in SMALL if key in published}
    )
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    random_checkpoint.write(name, tokenizer, tmp_path / name, seed=0)
    network = Checkpoint.open(Source(tmp_path / name)).network
    assert network.weight_map.unused == []
    network.check_finite()


def test_every_peer_has_an_adapter_and_pinned_requirements():
    environments = {peer.environment for peer in peer_list.PEERS.values()}
    environments |= {environment for environment, _, _ in peer_list.EXPORTERS.values()}
    for name in environments | {peer_list.REFERENCE.environment}:
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        assert all("==" in line for line in lines if line.strip() and not line.startswith("#")), name
    for peer in peer_list.PEERS.values():
        assert (REQUIREMENTS / f"{peer.adapter}.py").exists()
        assert set(peer.exports) <= {"bgert", *peer_list.EXPORTERS}


def test_only_bgerts_adapter_imports_bgert():
    for path in REQUIREMENTS.glob("*.py"):
        assert ("import bgert" in path.read_text()) == (path.name == "bgert.py"), path.name


def test_bgert_is_always_measured_and_first():
    assert [peer.name for peer in peer_list.choose("fastembed,bgert-int8")] == ["bgert", "fastembed", "bgert-int8"]
    assert [peer.name for peer in peer_list.choose("all")] == list(peer_list.PEERS)
    with pytest.raises(ValueError, match="unknown peer 'x'"):
        peer_list.choose("x")


def test_a_tokenizer_that_is_missing_is_told(tmp_path):
    with pytest.raises(models.ModelUnavailableError, match="--tokenizers"):
        models.checkpoint_of(models.MODELS["bge-reranker-base"], tmp_path, None)
