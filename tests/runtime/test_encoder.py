"""The public encoder, on a real trained model."""

import inspect
import json
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings
from itertools import count, islice

import numpy as np
import pytest

import bgert
from bgert import Encoder, Reranker
from bgert.evaluation.sample_texts import sample_texts
from bgert.model import Model

TEXTS = [
    "",
    "a",
    "   \t\n",
    "The quick brown fox jumps over the lazy dog.",
    "今天天气很好，我们去公园散步吧。",
    "Ünïcödé and émojis 👩‍👩‍👧‍👦 and \x00 NUL and \u200b zero width",
    "שלום עולם مرحبا بالعالم",
    "[CLS] injected [SEP] tokens [MASK]",
    *sample_texts(24, seed=3),
]


# Some of TEXTS are longer than the model; the warning has tests of its own.
pytestmark = pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")


def test_equals_sentence_transformers(encoder, demo_checkpoint):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = sentence_transformers.SentenceTransformer(str(demo_checkpoint), device="cpu")
        expected = reference.encode(TEXTS, batch_size=8, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5, rtol=0)


def test_str_is_one_row_and_list_is_a_matrix(encoder):
    one = encoder.encode("a text")
    many = encoder.encode(["a text"])
    assert one.shape == (384,)
    assert many.shape == (1, 384)
    assert one.dtype == many.dtype == np.float32
    np.testing.assert_array_equal(one, many[0])
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.encode(("a", "b")).shape == (2, 384)
    assert encoder.encode(np.array(["a", "b"])).shape == (2, 384)


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_a_vector_does_not_depend_on_its_batch_mates_bit_for_bit(encoder, demo_folder, mode):
    together = encoder.encode(TEXTS)
    other = bgert.Encoder(demo_folder, mode=mode)
    assert np.array_equal(together, np.stack([other.encode(text) for text in TEXTS]))
    assert np.array_equal(together, other.encode(TEXTS[::-1])[::-1])


def test_vectors_have_length_one_even_of_nothing(encoder):
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_words_of_one_cut_text(encoder):
    with pytest.warns(bgert.TruncationWarning, match="the only input was longer than 16 tokens and lost its end"):
        encoder.encode("long " * 50, max_length=16)


def test_result_says_what_happened(encoder):
    with pytest.warns(bgert.TruncationWarning, match="1 of 2 inputs was longer than 16 tokens and lost its end"):
        result = encoder.encode(["short", "long " * 50], max_length=16)
    assert result.info.truncated.tolist() == [False, True]
    assert (result.info.device, result.info.precision) == ("cpu", "fp32")
    assert result.info.tokens == 3 + 16
    assert result.info.engine.startswith("onnxruntime")


def test_the_truncation_warning_names_the_callers_line(encoder):
    with pytest.warns(bgert.TruncationWarning) as caught:
        encoder.encode("long " * 50, max_length=16)
    assert caught[0].filename == __file__
    with pytest.warns(bgert.TruncationWarning) as caught:
        list(encoder.stream(["long " * 50], max_length=16))
    assert caught[0].filename == __file__


def test_prompts(encoder, demo_folder):
    assert encoder.manifest.prompts == {"query": "", "document": ""}
    np.testing.assert_array_equal(encoder.encode_queries("x"), encoder.encode("x"))
    np.testing.assert_array_equal(encoder.encode("x", prompt="query"), encoder.encode("x"))
    with pytest.raises(bgert.InvalidOptionError, match="unknown prompt 'STS': this model has document, query"):
        encoder.encode("x", prompt="STS")
    instructed = bgert.Encoder(demo_folder)
    instructed.manifest.prompts.update(query="find: ", document="text: ")
    np.testing.assert_array_equal(instructed.encode_queries(["x"]), encoder.encode(["find: x"]))
    np.testing.assert_array_equal(instructed.encode_corpus("x"), encoder.encode("text: x"))
    np.testing.assert_array_equal(instructed.encode("x", prompt="query"), encoder.encode("find: x"))
    np.testing.assert_array_equal(instructed.encode("x"), encoder.encode("x"))


@pytest.mark.parametrize("said", [{}, {"query": "", "document": ""}])
def test_the_default_prompt_never_stands_in_for_query_and_document(encoder, demo_folder, said):
    instructed = bgert.Encoder(demo_folder)
    instructed.manifest.prompts.clear()
    instructed.manifest.prompts.update(said, classification="Classify: ")
    object.__setattr__(instructed.manifest, "default_prompt", "classification")
    np.testing.assert_array_equal(instructed.encode("x"), encoder.encode("Classify: x"))
    for found in (
        instructed.encode_queries("x"),
        instructed.encode_corpus("x"),
        instructed.encode("x", prompt="document"),
        next(instructed.stream(["x"], prompt="query"))[0],
    ):
        np.testing.assert_array_equal(found, encoder.encode("x"))


def test_dtypes_and_dimensions(encoder):
    full = np.asarray(encoder.encode(TEXTS))
    half = encoder.encode(TEXTS, dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_allclose(half, full, atol=1e-3)
    eight = encoder.encode(TEXTS, dtype="int8").astype(np.float32)
    cosines = (eight * full).sum(1) / np.linalg.norm(eight, axis=1)
    assert cosines.min() > 0.9995
    bits = encoder.encode(TEXTS, dtype="ubinary")
    np.testing.assert_array_equal(bits, np.packbits(full > 0, axis=1))
    short = encoder.encode(TEXTS, dimensions=64)
    expected = full[:, :64] / np.linalg.norm(full[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(short, expected, atol=1e-6)
    assert encoder.encode("x", dimensions=64, dtype="ubinary").shape == (8,)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, "NoneType"),
        (b"bytes", "bytes"),
        (3, "int"),
        ([None], "0"),
        (["fine", 3], "1"),
        ([["nested"]], "0"),
        (["fine", "lone \ud800 surrogate"], "1"),
        ("lone \udfff surrogate", "surrogate"),
        ({"a": 1}, "dict"),
    ],
)
def test_inputs_that_are_no_text(encoder, texts, message):
    with pytest.raises(bgert.InvalidTextError, match=message):
        encoder.encode(texts)
    with pytest.raises(TypeError):
        encoder.encode(texts)


@pytest.mark.parametrize("max_length", [0, 1, 2, -1, 513, 10**9, "8", 8.0, True])
def test_max_length_out_of_range(encoder, max_length):
    with pytest.raises(bgert.InvalidOptionError, match="from 3 to 512"):
        encoder.encode("x", max_length=max_length)
    with pytest.raises(bgert.InvalidOptionError):
        encoder.stream(["x"], max_length=max_length)


def test_max_length_three_keeps_one_token(encoder):
    np.testing.assert_allclose(encoder.encode("hello world", max_length=3), encoder.encode("hello"), atol=1e-6)


@pytest.mark.parametrize("dimensions", [0, -1, 385, 1.5, "64"])
def test_dimensions_out_of_range(encoder, dimensions):
    with pytest.raises(bgert.InvalidOptionError, match="from 1 to 384"):
        encoder.encode("x", dimensions=dimensions)


def test_unknown_dtype_and_unknown_option(encoder):
    with pytest.raises(bgert.InvalidOptionError, match="unknown dtype 'float64'"):
        encoder.encode("x", dtype="float64")
    with pytest.raises(TypeError):
        encoder.encode("x", batch_size=3)


def test_ten_megabytes_of_text(encoder):
    text = "a long story " * (10_000_000 // 13)
    started = time.process_time()
    result = encoder.encode(text)
    assert time.process_time() - started < 5
    np.testing.assert_allclose(result, encoder.encode("a long story " * 300), atol=1e-5)


def test_stream_is_encode_in_blocks(encoder):
    whole = np.asarray(encoder.encode(TEXTS))
    blocks = list(encoder.stream(iter(TEXTS), block=7))
    assert [len(block) for block in blocks] == [7] * (len(TEXTS) // 7) + [len(TEXTS) % 7] * bool(len(TEXTS) % 7)
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-5)
    assert list(encoder.stream([])) == []


def test_stream_reads_no_further_than_it_must(encoder):
    numbers = count()
    stream = encoder.stream((f"text {n}" for n in numbers), block=4)
    assert sum(len(block) for block in islice(stream, 3)) == 12
    stream.close()
    assert next(numbers) <= 4 * 6


@pytest.mark.parametrize("block", [0, -1, 2**31, 2**63, 1.5, "8"])
def test_blocks_out_of_range(encoder, block):
    with pytest.raises(bgert.InvalidOptionError, match="block is"):
        encoder.stream(["x"], block=block)


@pytest.mark.parametrize("texts", ["one string", b"bytes", None, 3])
def test_stream_of_no_iterable(encoder, texts):
    with pytest.raises(bgert.InvalidTextError):
        encoder.stream(texts)


def test_stream_names_the_bad_text_and_stops(encoder):
    with pytest.raises(bgert.InvalidTextError):
        list(encoder.stream(["a", "b", 3], block=2))


def test_many_threads_share_one_encoder(encoder):
    expected = encoder.encode(TEXTS)
    results = {}

    def work(name):
        results[name] = encoder.encode(TEXTS)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results.values():
        np.testing.assert_allclose(result, expected, atol=1e-6)
    assert len(results) == 4


@pytest.mark.parametrize("mode", ["throughput", "latency"])
@pytest.mark.parametrize("threads", [1, 2])
def test_modes_and_threads_agree(encoder, demo_folder, mode, threads):
    other = bgert.Encoder(demo_folder, mode=mode, threads=threads)
    np.testing.assert_allclose(other.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)


@pytest.mark.parametrize("mode", ["throughput", "latency"])
def test_a_forked_child_can_encode(demo_folder, mode):
    code = f"""
import os, sys, numpy as np, bgert
encoder = bgert.Encoder({str(demo_folder)!r}, mode={mode!r}, threads=2)
texts = ["some text " * n for n in range(1, 60)]
expected = encoder.encode(texts)
child = os.fork()
if child == 0:
    os._exit(0 if np.allclose(encoder.encode(texts), expected, atol=1e-5) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "tpu"}, bgert.InvalidOptionError),
        ({"mode": "fast"}, bgert.InvalidOptionError),
        ({"threads": 0}, bgert.InvalidOptionError),
        ({"threads": 1.5}, bgert.InvalidOptionError),
        ({"precision": "int3"}, bgert.InvalidOptionError),
        ({"precision": "fp16"}, bgert.DeviceUnavailableError),
        ({"device": "cuda"}, bgert.BgertError),
    ],
)
def test_options_of_the_engine(demo_folder, options, error):
    with pytest.raises(error):
        bgert.Encoder(demo_folder, **options)


def test_folders_that_are_no_model(tmp_path):
    with pytest.raises(bgert.ModelNotFoundError):
        bgert.Encoder(tmp_path / "none")
    with pytest.raises(bgert.ModelFolderError):
        bgert.Encoder(tmp_path)


@pytest.mark.parametrize("kind", ["graph", "data", "vocab"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damaged_files_are_refused(demo_folder, tmp_path, kind, damage):
    folder = tmp_path / "copy"
    shutil.copytree(demo_folder, folder)
    pattern = {"graph": "*.onnx", "data": "*.data", "vocab": "vocab*"}[kind]
    (path,) = folder.glob(pattern)
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            byte = file.read(1)[0]
            file.seek(-1, 1)
            file.write(bytes([byte ^ 1]))
    with pytest.raises(bgert.IntegrityError):
        bgert.Encoder(folder)


def test_what_the_engine_refuses_is_an_error_of_ours(demo_folder):
    encoder = bgert.Encoder(demo_folder)
    encoder._runner.backend._inputs = ["cu_seqlens"]
    with pytest.raises(bgert.EngineError, match="onnxruntime"):
        encoder.encode("word")


def test_no_way_leads_past_the_table_of_positions(demo_folder):
    encoder = bgert.Encoder(demo_folder)
    encoder._max_length = 10_000
    with pytest.raises(bgert.InvalidOptionError, match="input 1 has 2000 tokens and the model takes 512"):
        encoder.encode(["short", "word " * 1998])
    for options in ({"max_length": 2000}, {"max_length": 513}):
        with pytest.raises(bgert.InvalidOptionError, match="from 3 to 512"):
            encoder.encode("word " * 1998, **options)
        with pytest.raises(bgert.InvalidOptionError, match="from 3 to 512"):
            bgert.Encoder(demo_folder, **options)
    with pytest.raises(bgert.InvalidOptionError, match="from 3 to 512"):
        encoder.max_length = 513


@pytest.mark.parametrize("way", ["call", "constructor", "attribute", "pickle"])
def test_max_length_goes_up_to_the_table_of_positions(demo_folder, demo_checkpoint, way):
    from sentence_transformers import SentenceTransformer

    texts = ["word and another " * 100, "short", "nothing is cut here " * 90]
    peer = SentenceTransformer(str(demo_checkpoint), device="cpu")
    peer.max_seq_length = 512
    encoder, options = bgert.Encoder(demo_folder, max_length=512 if way in ("constructor", "pickle") else None), {}
    if way == "call":
        options = {"max_length": 512}
    elif way == "attribute":
        encoder.max_length = 512
    elif way == "pickle":
        encoder = pickle.loads(pickle.dumps(encoder))
    result = encoder.encode(texts, **options)
    assert not result.info.truncated.any()
    np.testing.assert_allclose(result, peer.encode(texts), atol=2e-6)
    assert np.abs(result - bgert.Encoder(demo_folder).encode(texts, max_length=256)).max() > 1e-2
    with pytest.warns(bgert.TruncationWarning, match="longer than 512 tokens"):
        encoder.encode("word " * 600, **options)


def test_a_folder_that_does_not_say_its_positions_keeps_its_limit(demo_folder, tmp_path):
    folder = shutil.copytree(demo_folder, tmp_path / "model")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["architecture"]["max_position_embeddings"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    encoder = bgert.Encoder(folder)
    assert encoder.encode("a", max_length=256).shape == (384,)
    with pytest.raises(bgert.InvalidOptionError, match="from 3 to 256; the folder does not say how many positions"):
        encoder.encode("a", max_length=257)


def test_an_engine_that_is_not_installed_names_its_extra(demo_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(bgert.EngineNotInstalledError, match="install the extra `cpu`"):
        bgert.Encoder(demo_folder)
    with pytest.raises(ImportError):
        bgert.Encoder(demo_folder)


def test_loading_is_quick(demo_folder):
    def load():
        started = time.process_time()
        bgert.Encoder(demo_folder)
        return time.process_time() - started

    assert min(load() for _ in range(3)) < 0.5


def test_no_rust_no_torch_in_the_process_that_encodes(demo_folder):
    code = f"""
import sys, bgert
encoder = bgert.Encoder({str(demo_folder)!r})
encoder.encode(["some text", "another"])
forbidden = {{"torch", "transformers", "tokenizers", "safetensors", "pydantic_core", "orjson", "rpds", "hf_xet"}}
print(sorted(forbidden & {{name.split(".")[0] for name in sys.modules}}))
maps = open("/proc/self/maps").read() if sys.platform == "linux" else ""
print(sorted(name for name in forbidden if f"/{{name}}/" in maps))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("model_class", [Encoder, Reranker])
def test_a_wrong_option_is_of_the_class_that_was_called(model_class, demo_folder):
    name = model_class.__name__
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) .*max_len"):
        model_class(demo_folder, max_len=3)
    with pytest.raises(TypeError, match=rf"^{name}\.__init__\(\) .*path"):
        model_class()


def test_every_option_of_a_model_is_an_option_of_each_kind():
    options = inspect.signature(Model).parameters
    assert dict(inspect.signature(Encoder).parameters) == dict(options)
    assert options.items() <= inspect.signature(Reranker).parameters.items()
