"""What the tests of every environment share."""

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def models():
    """Folders by name, as models.py says; made by run.py."""
    return {name: Path(path) for name, path in json.loads(os.environ["BGERT_MODELS"]).items()}


@pytest.fixture(scope="session")
def encoder(models):
    """bgert's own, of the trained model: what every adapter is compared with, bit for bit."""
    import bgert

    return bgert.Encoder(models["exported-minilm"])


@pytest.fixture(scope="session")
def reranker(models):
    import bgert

    return bgert.Reranker(models["exported-reranker"])
