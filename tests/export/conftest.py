"""Fixtures of the exporter: networks, sessions and a float64 oracle."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from random_network import draw_weights

NATIVE_SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}


@pytest.fixture(scope="session")
def float64_bert():
    """The module tests/export/float64_bert.py."""
    path = Path(__file__).with_name("float64_bert.py")
    spec = importlib.util.spec_from_file_location("float64_bert", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def feeds_of():
    """Inputs of a packed graph for lists of token ids."""
    from bgert.backends.onnx_cpu import _FEEDS
    from bgert.batching import PackedBatch

    def feeds(texts, names, types=None):
        lengths = np.array([len(ids) for ids in texts], np.int32)
        cuts = np.zeros(len(texts) + 1, np.int32)
        np.cumsum(lengths, out=cuts[1:])
        ids = np.concatenate(texts).astype(np.int32)
        kinds = np.zeros_like(ids) if types is None else np.concatenate(types).astype(np.int32)
        batch = PackedBatch(ids, cuts, kinds)
        return {name: _FEEDS[name](batch) for name in names}

    return feeds


@pytest.fixture(scope="session")
def open_session():
    def opened(folder, name="cpu-fp32.onnx"):
        import onnxruntime

        from bgert.backends.onnx_cpu import KERNELS

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.register_custom_ops_library(str(KERNELS))
        return onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])

    return opened


@pytest.fixture
def make_network(make_checkpoint):
    """A Network over a fresh checkpoint."""

    def make(**arguments):
        from bgert_export.checkpoint import Checkpoint
        from bgert_export.source import Source

        return Checkpoint.open(Source(make_checkpoint(**arguments))).network

    return make


@pytest.fixture
def make_native(tmp_path, write_model):
    """A checkpoint of transformers' class with an end, whose weights it drew, named and wrote."""

    import torch
    import transformers

    from bgert_export.families import FAMILIES

    def build(model_type, end="Model", *, config=None, files=None, seed=5, **changes):
        """`config` takes the place of the config.json that transformers writes."""
        tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": 512}
        folder = write_model(
            tmp_path / f"{model_type}{end}", weights={}, files={"tokenizer_config.json": tokenizer} | (files or {})
        )
        size = len((folder / "vocab.txt").read_text("utf-8").splitlines())
        name = FAMILIES[model_type].torch_name
        settings = NATIVE_SIZES | {"vocab_size": size, "pad_token_id": 0} | changes
        if "Classification" in end:
            settings["num_labels"] = 1
        print(f"seed {seed}")
        torch.manual_seed(seed)
        model = getattr(transformers, name + end)(getattr(transformers, f"{name}Config")(**settings))
        draw_weights(model)
        if model_type == "modernbert":  # of which transformers knows fast tokenizers alone
            transformers.BertTokenizer.from_pretrained(folder).save_pretrained(folder)
        model.save_pretrained(folder)
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
        return folder

    return build
