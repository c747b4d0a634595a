"""Models in sentence-transformers on PyTorch, and the same through bgert."""

import json
import shutil

import pytest

PROMPTS = {"query": "find the file: ", "document": "", "title": "name: "}


@pytest.fixture(scope="session")
def prompted(models, tmp_path_factory):
    """The trained encoder with prompts, a default one and another similarity: checkpoint and exported folder."""
    from bgert_export import export

    folder = tmp_path_factory.mktemp("prompted")
    checkpoint = folder / "checkpoint"
    shutil.copytree(models["minilm"], checkpoint)
    config = {"prompts": PROMPTS, "default_prompt_name": "title", "similarity_fn_name": "dot"}
    (checkpoint / "config_sentence_transformers.json").write_text(json.dumps(config))
    export(checkpoint, folder / "exported", verify=False)
    return checkpoint, folder / "exported"


@pytest.fixture(scope="session")
def labelled(models, tmp_path_factory):
    """A reranker of three labels: checkpoint and exported folder."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from bgert_export import export

    folder = tmp_path_factory.mktemp("labelled")
    checkpoint = folder / "checkpoint"
    shutil.copytree(models["reranker"], checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    for name in "classifier.weight", "classifier.bias":
        weights[name] = np.concatenate([scale * weights[name] for scale in np.float32([1, -2, 0.5])])
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text())
    labels = {str(number): f"LABEL_{number}" for number in range(3)}
    config |= {"id2label": labels, "label2id": {name: int(number) for number, name in labels.items()}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    export(checkpoint, folder / "exported", verify=False)
    return checkpoint, folder / "exported"


@pytest.fixture(scope="session")
def on_torch(models):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(models["minilm"]), device="cpu")


@pytest.fixture
def on_bgert(models):
    """A fresh one: tests set its limit."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(models["exported-minilm"]), trust_remote_code=True, device="cpu")


@pytest.fixture(scope="session")
def ranks_on_torch(models):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(models["reranker"]), device="cpu")


@pytest.fixture
def ranks_on_bgert(models):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(models["exported-reranker"]), trust_remote_code=True, device="cpu")
