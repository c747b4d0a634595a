"""Arithmetic of a model, and the list of models and peers."""

from types import SimpleNamespace

import pytest

import models
import peer_list
from peer_environment import REQUIREMENTS


def test_flop_by_hand():
    shape = SimpleNamespace(hidden_size=4, intermediate_size=16, num_hidden_layers=2)
    matrices = 2 * (4 * 4 * 4 + 2 * 4 * 16) * (3 + 5)
    attention = 4 * 4 * (3 * 3 + 5 * 5)
    assert models.flop(shape, [3, 5]) == 2 * (matrices + attention)


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
