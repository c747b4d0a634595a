"""`SentenceTransformer` of an exported folder: the bits of `bgert.Encoder`, the checkpoint's numbers on PyTorch."""

import copy
import pickle

import numpy as np
import pytest
import torch
from new_process import result_of
from sentence_transformers import SentenceTransformer, util
from sentence_transformers.util import quantize_embeddings

import bgert
from bgert.integrations.sentence_transformers import EncoderModule

TEXTS = ["Copy a folder.", "read JSON", "今天天气很好", "", "x " * 40, "which file is the largest?", " spaces  around "]


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_the_bits_of_encoder(on_bgert, encoder, batch_size):
    expected = encoder.encode(TEXTS)
    found = on_bgert.encode(TEXTS, batch_size=batch_size)
    assert (type(found), found.dtype) == (np.ndarray, np.float32)
    np.testing.assert_array_equal(found, expected)
    tensor = on_bgert.encode(TEXTS, batch_size=batch_size, convert_to_tensor=True)
    assert (tensor.device.type, tensor.dtype) == ("cpu", torch.float32)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    listed = on_bgert.encode(TEXTS, batch_size=batch_size, convert_to_numpy=False)
    np.testing.assert_array_equal(torch.stack(listed).numpy(), expected)
    np.testing.assert_array_equal(on_bgert.encode(np.array(TEXTS), batch_size=batch_size), expected)
    np.testing.assert_array_equal(on_bgert.encode(TEXTS[0]), expected[0])


def test_the_numbers_of_pytorch(on_bgert, on_torch):
    for options in {}, {"normalize_embeddings": True}, {"truncate_dim": 64}, {"prompt": "text: "}:
        np.testing.assert_allclose(
            on_bgert.encode(TEXTS, **options), on_torch.encode(TEXTS, **options), atol=1e-6, err_msg=str(options)
        )
    assert on_bgert.max_seq_length == on_torch.max_seq_length == 256
    assert on_bgert.get_sentence_embedding_dimension() == 384
    assert on_bgert.get_embedding_dimension() == 384
    assert on_bgert.similarity_fn_name == "cosine"


def test_prompts_are_those_of_encoder_and_of_pytorch(prompted):
    checkpoint, folder = prompted
    ours, encoder = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu"), bgert.Encoder(folder)
    peer = SentenceTransformer(str(checkpoint), device="cpu")
    assert (ours.prompts, ours.default_prompt_name) == (peer.prompts, peer.default_prompt_name)
    assert ours.similarity_fn_name == peer.similarity_fn_name == "dot"
    for mine, theirs in {
        "encode": "encode",
        "encode_queries": "encode_query",
        "encode_corpus": "encode_document",
    }.items():
        found = getattr(ours, theirs)(TEXTS)
        np.testing.assert_array_equal(found, getattr(encoder, mine)(TEXTS), err_msg=theirs)
        np.testing.assert_allclose(found, getattr(peer, theirs)(TEXTS), atol=1e-6, err_msg=theirs)
    np.testing.assert_array_equal(ours.encode(TEXTS, prompt_name="query"), encoder.encode(TEXTS, prompt="query"))
    np.testing.assert_array_equal(ours.encode(TEXTS, prompt="it: "), encoder.encode(TEXTS, prefix="it: "))
    np.testing.assert_array_equal(ours.encode(TEXTS, prompt=""), encoder.encode(TEXTS, prefix=""))
    assert np.abs(ours.encode(TEXTS) - ours.encode(TEXTS, prompt="")).max() > 0.01


def test_dimensions_and_quantizing(on_bgert, encoder):
    """Their int8 scales a column by the batch, `bgert.Encoder`'s a row: only bits are the same."""
    short = on_bgert.encode(TEXTS, truncate_dim=64, normalize_embeddings=True)
    np.testing.assert_allclose(short, encoder.encode(TEXTS, dimensions=64), atol=1e-7)
    np.testing.assert_array_equal(on_bgert.encode(TEXTS, precision="ubinary"), encoder.encode(TEXTS, dtype="ubinary"))
    vectors = np.asarray(encoder.encode(TEXTS))
    for precision in "int8", "uint8", "binary":
        found = on_bgert.encode(TEXTS, precision=precision)
        np.testing.assert_array_equal(found, quantize_embeddings(vectors, precision), err_msg=precision)
    assert np.abs(on_bgert.encode(TEXTS, precision="int8").astype(int) - encoder.encode(TEXTS, dtype="int8")).max() > 50


def test_a_lower_limit(on_bgert, encoder):
    on_bgert.max_seq_length = 8
    with pytest.warns(bgert.TruncationWarning, match="1 of 2 inputs was longer than 8 tokens.*Tokenizer") as caught:
        found = on_bgert.encode(["a", "word " * 30])
    assert {warning.filename for warning in caught} == {__file__}
    with pytest.warns(bgert.TruncationWarning):
        np.testing.assert_array_equal(found, encoder.encode(["a", "word " * 30], max_length=8))
    on_bgert.max_seq_length = None
    assert on_bgert.max_seq_length == 256
    for wrong in 257, 0, 8.0, True:
        with pytest.raises(bgert.InvalidOptionError, match="1 to 256"):
            on_bgert.max_seq_length = wrong


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_value": "token_embeddings"}, "no token_embeddings: bgert gives sentence_embedding alone"),
        ({"processing_kwargs": {"text": {"max_length": 5}}}, "processing_kwargs.*max_seq_length"),
        ({"inputs": ["a", 3]}, "^an input is int"),
        ({"inputs": ["a", "\ud800"]}, "^an input has a lone surrogate at position 0"),
        ({"inputs": [("a", "b")]}, "^an input is tuple"),
        ({"device": "meta"}, "placed on meta, where bgert does not run: pass device='cpu'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_there_is_refused(on_bgert, options, words):
    with pytest.raises(bgert.BgertError, match=words):
        on_bgert.encode(**{"inputs": ["a", "b"]} | options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "onnx"}, "backend is 'onnx'"),
        ({"model_kwargs": {"torch_dtype": torch.float16}}, "torch_dtype.*one precision.*'precision'"),
        ({"model_kwargs": {"precision": "bf16"}}, "precision 'bf16'"),
        ({"model_kwargs": {"device": "cuda"}}, "no graph for device 'cuda'"),
        (
            {"model_kwargs": {"attn_implementation": "sdpa"}},
            "attn_implementation.*there are device, precision, threads",
        ),
        ({"config_kwargs": {"hidden_act": "relu"}}, "hidden_act"),
        ({"processor_kwargs": {"padding_side": "left"}}, "padding_side"),
        ({"processor_kwargs": {"model_max_length": 1000}}, "max_seq_length is 1000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_others_are_refused(models, options, words):
    with pytest.raises(bgert.BgertError, match=words):
        SentenceTransformer(str(models["exported-minilm"]), trust_remote_code=True, device="cpu", **options)


def test_options_of_encoder(models, encoder):
    options = {"precision": "fp32", "threads": 1, "mode": "latency", "split_special_tokens": True}
    model = SentenceTransformer(
        str(models["exported-minilm"]), trust_remote_code=True, device="cpu", model_kwargs=options
    )
    plain = bgert.Encoder(models["exported-minilm"], **options)
    np.testing.assert_array_equal(model.encode(["a [SEP] b"]), plain.encode(["a [SEP] b"]))
    assert np.abs(model.encode(["a [SEP] b"]) - encoder.encode(["a [SEP] b"])).max() > 1e-3


def test_a_gpu_is_never_replaced_in_silence(on_bgert, monkeypatch):
    """The folder has no graph for it; a parameter that says it lies on a GPU is all that PyTorch for CPUs allows."""
    from types import SimpleNamespace

    monkeypatch.setitem(on_bgert[0]._parameters, "placement", SimpleNamespace(device=torch.device("cuda", 1)))
    with pytest.raises(
        bgert.DeviceUnavailableError, match=r"device 'cuda'.*takes a GPU where it is not told device='cpu'"
    ):
        on_bgert[0]({"inputs": ["a"], "prompt": ""})


def test_a_graph_keeps_its_precision(on_bgert):
    before = on_bgert.encode(TEXTS)
    for change in "half", "bfloat16", "double":
        with pytest.raises(bgert.InvalidOptionError, match=r"cannot change.*'precision'"):
            getattr(on_bgert, change)()
    assert (on_bgert.dtype, on_bgert.device.type) == (torch.float32, "cpu")
    np.testing.assert_array_equal(on_bgert.to("cpu").float().encode(TEXTS), before)


def test_copies(on_bgert):
    expected = on_bgert.encode(TEXTS)
    on_bgert.max_seq_length = 100
    for other in pickle.loads(pickle.dumps(on_bgert)), copy.deepcopy(on_bgert):
        np.testing.assert_array_equal(other.encode(TEXTS), expected)
        assert other.max_seq_length == 100


def test_a_pool_of_processes(on_bgert, encoder):
    texts = [f"{text} {number}" for number in range(20) for text in TEXTS]
    pool = on_bgert.start_multi_process_pool(["cpu", "cpu"])
    try:
        np.testing.assert_array_equal(on_bgert.encode(texts, pool=pool, chunk_size=30), encoder.encode(texts))
    finally:
        on_bgert.stop_multi_process_pool(pool)


def test_save_and_reload_in_a_new_process(on_bgert, prompted, tmp_path):
    """What was changed is there again, for bgert's own Encoder too."""
    model = SentenceTransformer(str(prompted[1]), trust_remote_code=True, device="cpu", prompts={"query": "changed: "})
    model.max_seq_length = 12
    expected = np.asarray([model.encode_query(TEXTS[:4]), model.encode(TEXTS[:4])])
    model.save(str(tmp_path / "saved"))
    model.save(str(tmp_path / "saved"))  # over itself
    found = result_of(
        """
from sentence_transformers import SentenceTransformer
import bgert
peer = SentenceTransformer(folder, trust_remote_code=True, device="cpu")
encoder = bgert.Encoder(folder)
rows = [peer.encode_query(texts), peer.encode(texts), encoder.encode_queries(texts), encoder.encode(texts)]
result = [[row.tolist() for row in rows], peer.max_seq_length, encoder.max_length, peer.similarity_fn_name]
""",
        folder=tmp_path / "saved",
        texts=TEXTS[:4],
    )
    np.testing.assert_array_equal(np.float32(found[0]), np.concatenate([expected, expected]))
    assert found[1:] == [12, 12, "dot"]
    manifest = bgert.Encoder(tmp_path / "saved").manifest
    said = {choice.field: choice.value for choice in manifest.choices if choice.why.startswith("asked for,")}
    assert said == {"max_tokens": 12, "prompts.query": "changed: "}


def test_without_the_folder_being_trusted(prompted, encoder, recwarn):
    module = EncoderModule(prompted[1], threads=1)
    bare = SentenceTransformer(modules=[module], device="cpu")
    with pytest.warns(UserWarning, match=r"prompt 'query', 'find the file: '.*\*\*module.settings") as caught:
        bare.encode_query(TEXTS)
    assert caught[0].filename == __file__
    ours, own = SentenceTransformer(modules=[module], device="cpu", **module.settings), bgert.Encoder(prompted[1])
    np.testing.assert_array_equal(ours.encode_query(TEXTS), own.encode_queries(TEXTS))
    np.testing.assert_array_equal(ours.encode(TEXTS), own.encode(TEXTS))
    fresh = SentenceTransformer(modules=[EncoderModule(prompted[1])], device="cpu")
    with pytest.warns(UserWarning, match="prompt 'title'"):
        fresh.encode(TEXTS)


def test_the_other_class(models):
    with pytest.raises(bgert.ModelFolderError, match="of kind reranker: it is for CrossEncoder"):
        EncoderModule(models["exported-reranker"])


def test_where_bgert_is_not_installed(models):
    said = result_of(
        """
import importlib.abc
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "bgert":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from sentence_transformers import SentenceTransformer
try:
    SentenceTransformer(folder, trust_remote_code=True, device="cpu")
except ImportError as error:
    result = str(error)
""",
        folder=models["exported-minilm"],
    )
    assert said == "No module named 'bgert'"


def test_search_and_mining(on_bgert, on_torch):
    corpus = ["copy a folder", "remove a file", "parse JSON", "read a document of JSON", "delete files", "the weather"]
    found, expected = (
        util.semantic_search(model.encode_query(["how to read JSON", "rm"]), model.encode_document(corpus), top_k=3)
        for model in (on_bgert, on_torch)
    )
    assert [[hit["corpus_id"] for hit in hits] for hits in found] == [
        [hit["corpus_id"] for hit in hits] for hits in expected
    ]
    found, expected = (util.paraphrase_mining(model, corpus) for model in (on_bgert, on_torch))
    assert [pair[1:] for pair in found] == [pair[1:] for pair in expected]
    np.testing.assert_allclose([pair[0] for pair in found], [pair[0] for pair in expected], atol=2e-6)
    np.testing.assert_allclose(
        on_bgert.similarity(on_bgert.encode(corpus), on_bgert.encode(corpus)),
        on_torch.similarity(on_torch.encode(corpus), on_torch.encode(corpus)),
        atol=2e-6,
    )


def test_evaluators(on_bgert, on_torch):
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

    documents = {f"d{number}": f"text {number % 7} about {word}" for number, word in enumerate("abcdefghijklm")}
    queries = {"q1": "text 3", "q2": "about k", "q3": "which text is it?"}
    relevant = {"q1": {"d3", "d10"}, "q2": {"d10"}, "q3": {"d0", "d12"}}
    words = ["a file", "files", "folder", "weather", "JSON", "rain"]
    for evaluator in (
        InformationRetrievalEvaluator(queries, documents, relevant),
        EmbeddingSimilarityEvaluator(words, words[::-1], [0.1, 0.4, 0.0, 0.3, 0.2, 0.9]),
    ):
        found, expected = evaluator(on_bgert), evaluator(on_torch)
        assert found.keys() == expected.keys()
        np.testing.assert_allclose(list(found.values()), list(expected.values()), atol=1e-6)
