"""FlagEmbedding's classes without FlagEmbedding; beside the original they are in tests/integrations/flag_embedding."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import bgert
from bgert import DeviceWarning, EngineNotInstalledError, InstructionWarning, InvalidOptionError, InvalidTextError
from bgert.integrations import flag_embedding, instructions
from bgert.integrations.flag_embedding import FlagAutoModel, FlagAutoReranker, FlagModel, FlagReranker, conventions

QUERY = "find the file: "
TEXTS = ["copy a file", "the folder", "a list of names and what is in it"]
PAIRS = [("copy a file", "the folder"), ("the folder", "a list of names " * 40), ("a list " * 60, "names " * 60)]


@pytest.fixture(scope="module")
def folders(write_model, sentence_transformers_files, make_reranker_checkpoint, tmp_path_factory):
    """Model folders by name; `bge-small-en-v1.5` has CLS pooling, normalises, and its own instruction for queries."""
    from bgert_export import export

    root = tmp_path_factory.mktemp("folders")
    files = sentence_transformers_files(prompts={"query": QUERY, "document": ""}, default="query")
    export(write_model(root / "checkpoint", files=files), root / "bge-small-en-v1.5", verify=False)
    files = sentence_transformers_files("mean", normalize=False)
    export(write_model(root / "e5-small", files=files), root / "plain", verify=False)
    export(make_reranker_checkpoint(1), root / "bge-reranker-base", verify=False)
    export(make_reranker_checkpoint(3), root / "labels", verify=False)
    return {path.name: path for path in root.iterdir()}


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch):
    monkeypatch.setattr(conventions, "_said", set())
    monkeypatch.setattr(instructions, "_told", set())


def flag_model(folder, **options):
    return FlagModel(folder, **{"use_fp16": False, "query_max_length": 64, "passage_max_length": 64} | options)


def flag_reranker(folder, **options):
    return FlagReranker(folder, **{"max_length": 64} | options)


def test_nothing_is_added_unless_it_is_given(folders):
    encoder = bgert.Encoder(folders["bge-small-en-v1.5"])
    model = flag_model(folders["bge-small-en-v1.5"])
    bare = encoder.encode(TEXTS, prefix="")
    assert (bare != encoder.encode_queries(TEXTS)).any()  # the folder has an instruction, and a default prompt
    for rows in (model.encode(TEXTS), model.encode_queries(tuple(TEXTS)), model.encode_corpus(TEXTS)):
        np.testing.assert_array_equal(rows, bare)
    given = flag_model(folders["bge-small-en-v1.5"], query_instruction_for_retrieval=QUERY)
    np.testing.assert_array_equal(given.encode_queries(TEXTS), encoder.encode_queries(TEXTS))
    np.testing.assert_array_equal(given.encode_corpus(TEXTS), bare)


def test_formats(folders):
    encoder = bgert.Encoder(folders["bge-small-en-v1.5"])
    with pytest.warns(InstructionWarning) as caught:
        model = flag_model(
            folders["bge-small-en-v1.5"],
            query_instruction_for_retrieval="find",
            query_instruction_format="{1}\\n{0}",
            passage_instruction_for_retrieval="text",
            passage_instruction_format="<{}> {}",
        )
    assert ["'\\nfind'" in str(caught[0].message), "'<text> '" in str(caught[1].message)] == [True, True]
    np.testing.assert_array_equal(model.encode_queries(TEXTS[0]), encoder.encode(f"{TEXTS[0]}\nfind", prefix=""))
    np.testing.assert_array_equal(model.encode_corpus(TEXTS[:1]), encoder.encode([f"<text> {TEXTS[0]}"], prefix=""))
    rows = model.encode(TEXTS, instruction="x", instruction_format="{} {}!")
    np.testing.assert_array_equal(rows, encoder.encode([f"x {text}!" for text in TEXTS], prefix=""))
    with pytest.raises(InvalidTextError, match=r"texts\[1\]"):
        model.encode_queries(["a", None])


def test_normalisation_that_the_folder_leaves_out(folders):
    encoder = bgert.Encoder(folders["plain"])
    raw = np.asarray(encoder.encode(TEXTS))
    model = flag_model(folders["plain"], pooling_method="mean", normalize_embeddings=False)
    np.testing.assert_array_equal(model.encode(TEXTS), raw)
    model = flag_model(folders["plain"], pooling_method="mean")
    unit = raw.astype(np.float64) / np.linalg.norm(raw.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(model.encode(TEXTS), unit, atol=1e-6)
    rows = flag_model(folders["plain"], pooling_method="mean", truncate_dim=8).encode(TEXTS)
    np.testing.assert_allclose(rows, unit[:, :8] / np.linalg.norm(unit[:, :8], axis=1, keepdims=True), atol=1e-6)
    assert rows.info.tokens > 0
    assert rows.dtype == np.float32


def test_an_fp16_graph_gives_float16(folders, monkeypatch):
    model = flag_model(folders["bge-small-en-v1.5"])
    monkeypatch.setattr(bgert.Encoder, "precision", "fp16")
    assert model.encode(TEXTS).dtype == np.float16


@pytest.mark.parametrize(
    ("folder", "options", "match"),
    [
        ("bge-small-en-v1.5", {"pooling_method": "mean"}, "pooling_method.*cls.*--pooling mean"),
        ("bge-small-en-v1.5", {"pooling_method": "last_token"}, "pooling_method"),
        ("bge-small-en-v1.5", {"normalize_embeddings": False}, "--no-normalize"),
        ("bge-small-en-v1.5", {"cache_dir": "cache"}, "BGERT_CACHE"),
        ("bge-small-en-v1.5", {"truncate_dim": 65}, "truncate_dim is 65"),
        ("bge-small-en-v1.5", {"truncate_dim": 0}, "truncate_dim is 0"),
        ("bge-small-en-v1.5", {"devices": "npu:0"}, "npu:0"),
        (
            "bge-small-en-v1.5",
            {"query_instruction_for_retrieval": "a", "query_instruction_format": "{}{}{}"},
            "'{}{}{}' does not take",
        ),
        ("plain", {}, "pooling_method='mean'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(folders, folder, options, match):
    with pytest.raises(InvalidOptionError, match=match):
        flag_model(folders[folder], **options)


def test_an_unknown_option_fails(folders):
    with pytest.raises(TypeError, match="pooling"):
        flag_model(folders["bge-small-en-v1.5"], pooling="cls")
    with pytest.raises(TypeError, match="padding"):
        flag_model(folders["bge-small-en-v1.5"]).encode(TEXTS, padding=True)


@pytest.mark.parametrize("use", [{"use_bf16": True}, {"use_fp16": True, "use_bf16": True}])
def test_bf16_has_to_be_there(folders, use):
    with pytest.raises(bgert.DeviceUnavailableError, match="bf16"):
        flag_model(folders["bge-small-en-v1.5"], **use)


def test_one_warning_each(folders):
    with pytest.warns(DeviceWarning, match="use_fp16 is True, and what runs on cpu is fp32") as caught:
        model = FlagModel(folders["bge-small-en-v1.5"], query_max_length=64, passage_max_length=64)
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.warns(UserWarning, match="batch_size is ignored") as caught:
        model.encode(TEXTS, batch_size=1)
    assert [warning.filename for warning in caught] == [__file__]
    FlagModel(folders["bge-small-en-v1.5"], batch_size=2).encode_queries("a", 3, max_length=9)
    flag_reranker(folders["bge-reranker-base"], batch_size=2).compute_score(PAIRS[:1], batch_size=4)


def test_a_gpu_that_fp32_leaves_idle_is_said(folders, monkeypatch):
    monkeypatch.setattr(conventions, "nvidia_device_present", lambda: True)
    graph = bgert.model_folder.Manifest.graph
    monkeypatch.setattr(
        bgert.model_folder.Manifest,
        "graph",
        lambda manifest, target, precision=None: (
            graph(manifest, "cpu") if precision is None else graph(manifest, target, precision)
        ),
    )
    with pytest.warns(DeviceWarning, match="use_fp16 is False, there is a GPU"):
        flag_model(folders["bge-small-en-v1.5"])
    conventions._said.clear()
    flag_model(folders["bge-small-en-v1.5"], devices="cpu")


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_scores_of_pairs(folders):
    reranker = bgert.Reranker(folders["bge-reranker-base"])
    logits = reranker.score(PAIRS, truncation="flag_embedding", max_length=64)
    model = flag_reranker(folders["bge-reranker-base"])
    assert model.compute_score(PAIRS) == logits.tolist()
    assert model.compute_score([list(pair) for pair in PAIRS]) == logits.tolist()
    assert model.compute_score(PAIRS[0]) == model.compute_score(list(PAIRS[0])) == logits[:1].tolist()
    assert model.compute_score([]) == []
    sigmoids = 1 / (1 + np.exp(-logits.astype(np.float64)))
    np.testing.assert_allclose(model.compute_score(PAIRS, normalize=True), sigmoids, rtol=1e-12)
    normalizing = flag_reranker(folders["bge-reranker-base"], normalize=True)
    assert normalizing.compute_score(PAIRS) == model.compute_score(PAIRS, normalize=True)
    assert normalizing.compute_score(PAIRS, normalize=False) == logits.tolist()
    instructed = flag_reranker(
        folders["bge-reranker-base"],
        query_instruction_for_rerank="find",
        query_instruction_format="{}: {}",
        passage_instruction_for_rerank="in",
        passage_instruction_format="{}\\n{}",
    )
    pairs = [(f"find: {query}", f"in\n{passage}") for query, passage in PAIRS]
    assert instructed.compute_score(PAIRS) == model.compute_score(pairs)


def test_rerankers_refuse(folders):
    with pytest.raises(InvalidOptionError, match="3 scores a pair"):
        flag_reranker(folders["labels"])
    with pytest.raises(InvalidOptionError, match="does not take"):
        flag_reranker(
            folders["bge-reranker-base"], passage_instruction_for_rerank="a", passage_instruction_format="{x}"
        )
    model = flag_reranker(folders["bge-reranker-base"], query_instruction_for_rerank="a")
    for wrong in ([("a", "b", "c")], [("a", None)], ["ab"], ("a",), [("a", "b"), "cd"], [("a", "b"), None], [None]):
        with pytest.raises(InvalidTextError):
            model.compute_score(wrong)


def test_pickle_and_free(folders):
    for model, call in (
        (flag_model(folders["bge-small-en-v1.5"], truncate_dim=8), lambda model: model.encode(TEXTS).tolist()),
        (flag_reranker(folders["bge-reranker-base"]), lambda model: model.compute_score(PAIRS[0])),
    ):
        expected = call(model)
        assert call(pickle.loads(pickle.dumps(model))) == expected
        model.stop_self_pool()
        assert "not opened" in repr(getattr(model, "encoder", None) or model.reranker)
        assert call(model) == expected


def test_automatic_classes_go_by_name(folders, tmp_path):
    name = "bge-small-en-v1.5"
    model = FlagAutoModel.from_finetuned(folders[name], use_fp16=False, truncate_dim=8, passage_max_length=64)
    assert model.encode(TEXTS).shape == (3, 8)
    for path in (tmp_path / "mine", tmp_path / "bge-base-en" / "checkpoint-7"):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(folders[name])
    FlagAutoModel.from_finetuned(tmp_path / "bge-base-en" / "checkpoint-7", use_fp16=False)
    with pytest.raises(InvalidOptionError, match=r"no 'mine' or 'checkpoint'.*model_class='encoder-only-base'"):
        FlagAutoModel.from_finetuned(str(tmp_path / "mine"))
    FlagAutoModel.from_finetuned(str(tmp_path / "mine"), "encoder-only-base", use_fp16=False)
    # The name says mean pooling, and this model has CLS; a folder of any name goes by the checkpoint's.
    (tmp_path / "gte-base").symlink_to(folders[name])
    with pytest.raises(InvalidOptionError, match="pooling_method is 'mean'"):
        FlagAutoModel.from_finetuned(tmp_path / "gte-base", use_fp16=False)
    assert flag_model(folders["plain"], pooling_method="mean").encoder.manifest.source["path"].endswith("e5-small")
    FlagAutoModel.from_finetuned(folders["plain"], use_fp16=False)
    FlagAutoReranker.from_finetuned(str(folders["bge-reranker-base"]), max_length=64).compute_score(PAIRS[0])


@pytest.mark.parametrize(
    ("make", "name", "options", "match"),
    [
        (FlagAutoModel, "BAAI/bge-code-v1", {}, "FlagLLMModel"),
        (FlagAutoModel, "bge-small-en", {"model_class": "decoder-only-icl"}, "decoder-only-icl"),
        (FlagAutoReranker, "bge-reranker-v2-gemma", {}, "FlagLLMReranker"),
        (FlagAutoReranker, "bge-small-en", {}, "knows no"),
    ],
)
def test_automatic_classes_refuse_by_name(make, name, options, match):
    with pytest.raises(InvalidOptionError, match=match):
        make.from_finetuned(name, **options)


@pytest.mark.parametrize("name", ["FlagICLModel", "FlagLLMModel", "FlagLLMReranker"])
def test_other_classes_say_so(name):
    with pytest.raises(InvalidOptionError, match=name):
        getattr(flag_embedding, name)("a", use_fp16=True)
    for automatic in (FlagAutoModel, FlagAutoReranker):
        with pytest.raises(InvalidOptionError, match="from_finetuned"):
            automatic()


@pytest.mark.parametrize(
    ("devices", "device"),
    [
        (None, "auto"),
        ("cpu", "cpu"),
        (1, ["cuda:1"]),
        ([0, 2], ["cuda:0", "cuda:2"]),
        (["cuda:0"], ["cuda:0"]),
        (["cpu", "cpu"], "cpu"),
    ],
)
def test_devices(devices, device):
    assert conventions._device(devices) == device


def test_tensors(folders, monkeypatch):
    model = flag_model(folders["bge-small-en-v1.5"], convert_to_numpy=False)
    torch = pytest.importorskip("torch")
    rows = model.encode(TEXTS)
    assert (type(rows), rows.dtype, rows.device.type) == (torch.Tensor, torch.float32, "cpu")
    np.testing.assert_array_equal(rows.numpy(), model.encode(TEXTS, convert_to_numpy=True))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineNotInstalledError, match="convert_to_numpy"):
        model.encode(TEXTS)


def test_neither_torch_nor_flag_embedding_is_loaded(folders):
    code = f"""
import sys
from bgert.integrations.flag_embedding import FlagModel
FlagModel({str(folders["bge-small-en-v1.5"])!r}, use_fp16=False).encode("a", max_length=64)
print(sorted({{"torch", "FlagEmbedding", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
