"""Networks with rotary positions and gated feed-forward networks, from files to vectors and scores.

Truth is the class of transformers.
"""

import json
from functools import partial

import numpy as np
import pytest
import torch
import transformers

import bgert
from bgert.backends.onnx_cpu import feeds_of, open_session
from bgert.batching import PackedBatch
from bgert.tokenizer import Tokenizer
from bgert_export import export
from bgert_export.architecture import Architecture
from bgert_export.checkpoint import Checkpoint
from bgert_export.errors import UnsupportedCheckpointError, VerificationError
from bgert_export.graphs import cpu
from bgert_export.graphs.linears import Fp32Linears, Int8Linears
from bgert_export.rotary import Rotary
from bgert_export.source import Source

SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
TEXTS = ["copy a file", "", "the model of the day " * 9, "return [PAD] list", "a b c " * 160]
PAIRS = [("copy a file", "the model of the day " * 90), ("", "list"), ("a [PAD] b", "file")]
# What its own code calls the fields, as the published nomic-embed-text-v1 has them.
NOMIC = {
    "model_type": "nomic_bert",
    "architectures": ["NomicBertModel"],
    "auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"},
    "activation_function": "swiglu",
    "causal": False,
    "layer_norm_epsilon": 1e-12,
    "max_trained_positions": 2048,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": 64,
    "n_head": 4,
    "n_inner": 96,
    "n_layer": 3,
    "n_positions": 8192,
    "parallel_block": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "type_vocab_size": 2,
    "use_rms_norm": False,
}


def given(model, tokenizer, *texts):
    """What a model takes of what the tokenizer gives."""
    inputs = tokenizer(*texts, truncation="longest_first", max_length=tokenizer.model_max_length, return_tensors="pt")
    return {
        name: value for name, value in inputs.items() if model.config.model_type != "modernbert" or "type" not in name
    }


def vectors(model, tokenizer, texts, pooling):
    rows = []
    for text in texts:
        with torch.no_grad():
            states = model(**given(model, tokenizer, text)).last_hidden_state
        pooled = states.mean(1) if pooling == "mean" else states[:, 0]
        rows.append(torch.nn.functional.normalize(pooled, dim=1)[0].numpy())
    return np.stack(rows)


def loaded(folder, name="AutoModel"):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return getattr(transformers, name).from_pretrained(folder).eval(), tokenizer


@pytest.mark.parametrize("model_type", ["nomic_bert", "gte", "modernbert"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_transformers(make_native, tmp_path, model_type, pooling):
    folder = make_native(model_type)
    manifest = export(folder, tmp_path / "out", pooling=pooling, normalize=True)
    assert manifest.graphs[0].parity.max_abs_error < 2e-5
    encoder = bgert.Encoder(tmp_path / "out")
    found = encoder.encode(TEXTS)
    np.testing.assert_allclose(found, vectors(*loaded(folder), TEXTS, pooling), atol=2e-5, rtol=0)
    for text, row in zip(TEXTS, found, strict=True):
        np.testing.assert_array_equal(encoder.encode([text])[0], row)


@pytest.mark.parametrize("model_type", ["nomic_bert", "gte", "modernbert"])
def test_scores_are_those_of_transformers(make_native, tmp_path, model_type):
    types = {"type_vocab_size": 2} if model_type == "gte" else {}  # the tokenizer gives two
    folder = make_native(model_type, "ForSequenceClassification", **types)
    export(folder, tmp_path / "out")
    found = bgert.Reranker(tmp_path / "out").score(PAIRS)
    model, tokenizer = loaded(folder, "AutoModelForSequenceClassification")
    for pair, score in zip(PAIRS, found, strict=True):
        with torch.no_grad():
            expected = model(**given(model, tokenizer, *pair)).logits[0, 0]
        assert abs(float(expected) - float(score)) < 2e-5


@pytest.mark.parametrize("model_type", ["nomic_bert", "gte", "modernbert"])
def test_reduced_precisions(make_native, tmp_path, model_type):
    targets = ["cpu", "cpu-bf16", "cpu-int8"]
    manifest = export(
        make_native(model_type), tmp_path / "out", pooling="mean", normalize=True, targets=targets, int8_floor=0.98
    )
    for graph in manifest.graphs[1:]:
        assert 0.98 < graph.parity.mean_cosine < 1


@pytest.mark.parametrize("model_type", ["nomic_bert", "gte", "modernbert"])
def test_a_width_that_is_no_whole_number_of_panels(make_native, tmp_path, model_type):
    folder = make_native(model_type, intermediate_size=88)
    assert export(folder, tmp_path / "out", pooling="mean", normalize=True).graphs[0].parity.max_abs_error < 2e-5


def test_fields_as_nomic_s_own_code_calls_them(make_native, tmp_path):
    """Read without that code, and verified with transformers' class."""
    folder = make_native("nomic_bert", config=NOMIC)
    manifest = export(folder, tmp_path / "out", pooling="mean", normalize=True)
    assert manifest.architecture["max_position_embeddings"] == 8192
    assert manifest.graphs[0].parity.max_abs_error < 2e-5


def test_a_text_of_8192_tokens(make_native, tmp_path):
    tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": 8192}
    config = NOMIC | SIZES | {"n_layer": 1, "num_hidden_layers": 1}
    folder = make_native("nomic_bert", config=config, num_hidden_layers=1, files={"tokenizer_config.json": tokenizer})
    export(folder, tmp_path / "out", pooling="mean", normalize=True, verify=False)
    encoder = bgert.Encoder(tmp_path / "out")
    texts = ["the model of the day " * 1638, "copy"]
    assert len(transformers.AutoTokenizer.from_pretrained(folder)(texts[0])["input_ids"]) == 8192
    np.testing.assert_allclose(encoder.encode(texts), vectors(*loaded(folder), texts, "mean"), atol=2e-5, rtol=0)


def test_dynamic_scaling_ends_where_angles_begin_to_depend_on_a_text_s_length():
    config = NOMIC | {"vocab_size": 100}
    assert Architecture.from_config(config).max_tokens == 8192
    assert Architecture.from_config(config | {"rotary_scaling_factor": 2}).max_tokens == 2048


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_emb_interleaved": True}, "rotary_emb_interleaved True is not supported"),
        ({"rotary_emb_fraction": 0.5}, r"rotary_emb_fraction 0\.5 is not supported"),
        ({"prenorm": True}, "prenorm True is not supported"),
        ({"qkv_proj_bias": True}, "qkv_proj_bias True is not supported"),
        ({"moe_every_n_layers": 2}, "moe_every_n_layers 2 is not supported"),
        ({"activation_function": "gelu"}, "activation_function 'gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters .* is not supported"),
    ],
)
def test_settings_of_another_network_are_refused(changes, message):
    with pytest.raises(UnsupportedCheckpointError, match=message):
        Architecture.from_config(NOMIC | {"vocab_size": 100} | changes)


@pytest.mark.parametrize(
    "layers",
    [
        ["sliding_attention"] * 3,
        ["full_attention", "sliding_attention"] * 2,
        ["full_attention", "sliding_attention", "full_attention"],  # as ModernBERT's own, of 22 and of 28 layers
    ],
)
@pytest.mark.parametrize("window", [2, 16, 128])
def test_layers_that_see_neighbours_alone(make_native, tmp_path, window, layers):
    """Texts shorter than the window, of several blocks of queries, and both kinds of last layer."""
    folder = make_native("modernbert", local_attention=window, layer_types=layers, num_hidden_layers=len(layers))
    texts = [*TEXTS, "the model of " * 21, "file " * 63, "file " * 62]
    for pooling in ("cls", "mean"):
        export(folder, tmp_path / pooling, pooling=pooling, normalize=True, verify=False)
        encoder = bgert.Encoder(tmp_path / pooling)
        found = encoder.encode(texts)
        np.testing.assert_allclose(found, vectors(*loaded(folder), texts, pooling), atol=2e-5, rtol=0)
        for text, row in zip(texts, found, strict=True):
            np.testing.assert_array_equal(encoder.encode([text])[0], row)


def test_int8_whose_last_query_stays_in_float32(make_native, tmp_path):
    """That of one token a text, which reads a LayerNorm and not the sum before it."""
    layers = ["full_attention", "sliding_attention", "full_attention"]
    folder = make_native("modernbert", layer_types=layers, num_hidden_layers=3)
    network, last = Checkpoint.open(Source(folder)).network, "encoder.layer.2.attention.self.query"
    batch = Tokenizer.from_folder(folder).encode_batch(TEXTS)
    packed = PackedBatch(batch.ids, batch.cu_seqlens, batch.type_ids)
    rows = {}
    for name, linears in ("fp32", Fp32Linears), ("int8", Int8Linears), ("some", partial(Int8Linears, in_fp32=[last])):
        cpu.write_encoder(network, tmp_path, name, linears, pooling="cls", normalize=True, version="0")
        session = open_session(tmp_path / f"{name}.onnx")
        rows[name] = session.run(None, feeds_of([entry.name for entry in session.get_inputs()], packed))[0]
    errors = {name: float(np.abs(found - rows["fp32"]).max()) for name, found in rows.items()}
    print(errors)
    assert errors["some"] < 1.2 * errors["int8"] < 0.1


def test_a_classifier_may_read_the_mean(make_native, tmp_path):
    folder = make_native("modernbert", "ForSequenceClassification", classifier_pooling="mean")
    export(folder, tmp_path / "out")
    found = bgert.Reranker(tmp_path / "out").score(PAIRS)
    model, tokenizer = loaded(folder, "AutoModelForSequenceClassification")
    for pair, score in zip(PAIRS, found, strict=True):
        with torch.no_grad():
            assert abs(float(model(**given(model, tokenizer, *pair)).logits[0, 0]) - float(score)) < 2e-5


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_local_attention_is_refused_where_no_graph_has_it(make_native, tmp_path, target):
    with pytest.raises(UnsupportedCheckpointError, match=f"the target {target} does not have: export the target cpu"):
        export(
            make_native("modernbert"), tmp_path / "out", pooling="cls", normalize=True, targets=[target], verify=False
        )


def test_another_theta_is_found_by_verification(make_native, tmp_path):
    """transformers reads theta from another field: where the two disagree there is no saying what the model is."""
    folder = make_native("nomic_bert")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"rotary_emb_base": 9999.0}))
    with pytest.raises(VerificationError):
        export(folder, tmp_path / "out", pooling="mean", normalize=True)


@pytest.mark.parametrize(("theta", "size"), [(1000.0, 64), (160_000.0, 64), (10_000.0, 32), (500_000.0, 128)])
def test_frequencies_are_those_of_torch(theta, size):
    expected = 1.0 / (theta ** (torch.arange(0, size, 2, dtype=torch.float) / size))
    np.testing.assert_allclose(Rotary(theta).frequencies(size), expected.numpy(), rtol=1.2e-7, atol=0)
    angles = torch.arange(64).float()[:, None] * expected
    turns = np.concatenate([angles.cos().numpy(), angles.sin().numpy()], axis=1)
    np.testing.assert_allclose(Rotary(theta).turns(size, 64), turns, atol=2e-7, rtol=0)
