"""Environments: built once by hash, and a failure that says what pip said."""

import pytest

import peer_environment
from peer_environment import EnvironmentFailedError, PeerEnvironments


@pytest.fixture
def environments(tmp_path, monkeypatch):
    monkeypatch.setattr(peer_environment, "REQUIREMENTS", tmp_path)
    return PeerEnvironments(tmp_path / "venvs", tmp_path / "pip.log")


def test_built_once_and_again_when_the_requirements_change(environments, tmp_path, monkeypatch):
    (tmp_path / "empty.txt").write_text("")
    first = environments.get("empty")
    assert first.versions == {}
    assert first.install_bytes < 100_000
    calls = []
    run = PeerEnvironments._run
    monkeypatch.setattr(PeerEnvironments, "_run", lambda self, command: calls.append(command) or run(self, command))
    assert environments.get("empty") == first
    assert calls == []
    (tmp_path / "empty.txt").write_text("# changed\n")
    environments.get("empty")
    assert calls


def test_what_cannot_be_installed(environments, tmp_path):
    (tmp_path / "broken.txt").write_text("./no-such-folder\n")
    with pytest.raises(EnvironmentFailedError, match="no-such-folder"):
        environments.get("broken")
