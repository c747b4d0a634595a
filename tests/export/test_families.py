"""Every family's checkpoints as transformers itself writes them, from files to vectors and scores."""

import json

import numpy as np
import pytest
import torch
import transformers

import bgert
from bgert_export import export
from bgert_export.architecture import Architecture
from bgert_export.errors import CheckpointError, UnsupportedCheckpointError
from bgert_export.families import FAMILIES
from bgert_export.network import relative_buckets
from random_network import draw_weights

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
TEXTS = ["copy a file", "", "the model of the day " * 9, "return [PAD] list"]
PAIRS = [("copy a file", "the model of the day " * 9), ("", "list"), ("a [PAD] b", "file")]
MORE = {"electra": {"embedding_size": 64}, "camembert": {"type_vocab_size": 1}, "roberta": {"type_vocab_size": 1}}


@pytest.fixture
def make(tmp_path, write_model, make_config):
    """A checkpoint of a family, of the class with an end, whose weights transformers drew, named and wrote."""

    def build(model_type, end="Model", seed=3, **changes):
        settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
        if model_type in ("roberta", "camembert"):  # one type alone
            settings["model_input_names"] = ["input_ids", "attention_mask"]
        files = {"tokenizer_config.json": settings}
        folder = write_model(tmp_path / f"{model_type}{end}", weights={}, files=files)
        size = len((folder / "vocab.txt").read_text("utf-8").splitlines())
        family = FAMILIES[model_type]
        config = transformers.AutoConfig.for_model(
            model_type,
            **{family.config_name(name): value for name, value in SIZES.items()},
            vocab_size=size,
            max_position_embeddings=64 + 2 * family.positions_after_padding,
            # A token that texts can hold: wherever positions skip padding, they skip it there.
            pad_token_id=1 if family.positions_after_padding else 0,
            **MORE.get(model_type, {}) | ({"num_labels": 1} if "Classification" in end else {}) | changes,
        )
        print(f"seed {seed}")
        torch.manual_seed(seed)
        model = getattr(transformers, family.name + end)(config)
        draw_weights(model)
        model.save_pretrained(folder)
        return folder

    return build


@pytest.mark.parametrize(
    ("model_type", "end"),
    [
        ("roberta", "Model"),
        ("camembert", "ForMaskedLM"),
        ("distilbert", "ForMaskedLM"),
        ("electra", "ForPreTraining"),
        ("mpnet", "Model"),
        ("mpnet", "ForMaskedLM"),
    ],
)
def test_vectors_are_those_of_transformers(make, tmp_path, model_type, end):
    folder = make(model_type, end)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=True)  # against the class of transformers
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    found = bgert.Encoder(tmp_path / "out").encode(TEXTS)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, truncation=True, return_tensors="pt")).last_hidden_state.mean(1)
        expected = torch.nn.functional.normalize(mean, dim=1)[0].numpy()
        np.testing.assert_allclose(row, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "model_type",
    [name for name, family in FAMILIES.items() if family.rotary is None and name not in ("bert", "xlm-roberta")],
)
def test_scores_are_those_of_transformers(make, tmp_path, model_type):
    folder = make(model_type, "ForSequenceClassification")
    export(folder, tmp_path / "out")
    found = bgert.Reranker(tmp_path / "out").score(PAIRS)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for pair, score in zip(PAIRS, found, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(*pair, truncation="longest_first", return_tensors="pt")).logits[0, 0]
        assert abs(float(expected) - float(score)) < 2e-5


@pytest.mark.parametrize("model_type", ["distilbert", "mpnet"])
def test_reduced_precisions(make, tmp_path, model_type):
    """The same graph with other matrices; every one is compared with PyTorch by the export itself."""
    targets = ["cpu", "cpu-bf16", "cpu-int8"]
    manifest = export(
        make(model_type), tmp_path / "out", pooling="cls", normalize=True, targets=targets, int8_floor=0.98
    )
    for graph in manifest.graphs[1:]:
        assert 0.98 < graph.parity.mean_cosine < 1


@pytest.mark.parametrize("model_type", ["camembert", "distilbert", "electra"])
@pytest.mark.parametrize("end", ["Model", "ForSequenceClassification"])
def test_other_targets_are_written(make, tmp_path, model_type, end):
    options = {"pooling": "cls", "normalize": True} if end == "Model" else {}
    manifest = export(make(model_type, end), tmp_path / "out", targets=["cuda", "tensorrt"], verify=False, **options)
    assert len(manifest.graphs) == 2


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_relative_positions_are_refused_where_no_graph_has_them(make, tmp_path, target):
    with pytest.raises(UnsupportedCheckpointError, match=f"the target {target} does not have: export the target cpu"):
        export(make("mpnet"), tmp_path / "out", pooling="mean", normalize=True, targets=[target], verify=False)


def test_buckets_are_those_of_transformers():
    """At every distance that a position table allows, where float32 decides between two as well."""
    distances = np.arange(-1023, 1024)
    encoder = transformers.models.mpnet.modeling_mpnet.MPNetEncoder
    expected = encoder.relative_position_bucket(torch.from_numpy(distances), num_buckets=32).numpy()
    assert relative_buckets(distances, 32).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("model_type", "changes", "message"),
    [
        ("electra", {"embedding_size": 32}, "embedding_size 32 is not hidden_size 64"),
        ("mpnet", {"relative_attention_num_buckets": 16}, "relative_attention_num_buckets 16 is not supported"),
    ],
)
def test_settings_that_change_the_network_are_refused(make, tmp_path, model_type, changes, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        export(make(model_type, **changes), tmp_path / "out", pooling="mean", normalize=True, verify=False)


def test_weights_under_another_family_s_names_are_not_taken(make):
    """transformers would leave them out and run a network of noise."""
    from safetensors.numpy import load_file, save_file

    folder = make("distilbert")
    weights = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("transformer.layer", "encoder.layer").replace("attention.q_lin", "attention.self.query"): value
        for name, value in weights.items()
    }
    save_file(renamed, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"no weight encoder\.layer\.0\.attention\.self\.query\.weight"):
        export(folder, folder.with_name("out"), pooling="mean", normalize=True, verify=False)


def test_what_config_json_calls_sizes(make):
    config = json.loads((make("distilbert") / "config.json").read_text("utf-8"))
    assert "hidden_size" not in config
    architecture = Architecture.from_config(config)
    assert {name: getattr(architecture, name) for name in SIZES} == SIZES
    with pytest.raises(CheckpointError, match=r"config\.json: dim is 0, not a whole number"):
        Architecture.from_config(config | {"dim": 0})
