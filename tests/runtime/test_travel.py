"""Models and results that are pickled, copied, closed and shown; prefixes and threads."""

import copy
import json
import logging
import multiprocessing
import pickle

import numpy as np
import pytest

import bgert
from bgert import DeviceWarning, Encoder, EngineError, InvalidOptionError, Tokenizer


@pytest.fixture(scope="module")
def encoder(demo_folder):
    return Encoder(demo_folder, device="cpu", split_special_tokens=True)


@pytest.mark.parametrize("travel", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_travels_as_its_folder_and_opens_on_first_use(encoder, travel):
    there = travel(encoder)
    assert "_runner" not in vars(there)
    assert "not opened yet" in repr(there)
    assert there.split_special_tokens
    assert np.array_equal(there.encode("a text [SEP]"), encoder.encode("a text [SEP]"))
    assert len(pickle.dumps(encoder)) < 2000


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_takes_a_method_of_a_model(encoder, method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        result = pool.apply(encoder.encode, (["a text"],))
    assert np.array_equal(result, encoder.encode(["a text"]))
    assert result.info.device == "cpu"


def test_a_tokenizer_travels(demo_folder):
    tokenizer = Tokenizer(demo_folder)
    there = pickle.loads(pickle.dumps(tokenizer))
    assert there.encode("a text").tolist() == tokenizer.encode("a text").tolist()
    assert len(pickle.dumps(Encoder(demo_folder, device="cpu").tokenizer)) < 2000
    assert copy.deepcopy(tokenizer).max_length == tokenizer.max_length


@pytest.mark.parametrize(
    "travel",
    [
        copy.copy,
        copy.deepcopy,
        lambda array: array.copy(),
        *(lambda a, p=p: pickle.loads(pickle.dumps(a, p)) for p in (2, 5)),
    ],
)
def test_info_survives_pickle_and_copy(encoder, travel):
    result = encoder.encode(["a", "b"])
    there = travel(result)
    assert type(there) is bgert.Embeddings
    assert np.array_equal(there, result)
    assert there.info.tokens == result.info.tokens
    assert result[:1].info is None


def test_a_closed_model_says_so(demo_folder):
    with Encoder(demo_folder, device="cpu") as encoder:
        assert encoder.encode("a").shape == (encoder.dimensions,)
        assert repr(encoder).endswith(f"{encoder.dimensions} dimensions, cpu fp32)")
    assert "closed" in repr(encoder)
    with pytest.raises(EngineError, match="closed"):
        encoder.encode("a")


def test_prefix_is_literal_text(encoder):
    assert np.array_equal(encoder.encode("b", prefix="a "), encoder.encode("a b", prefix=""))
    assert np.array_equal(encoder.encode_queries("b", prefix="a "), encoder.encode_corpus("a b", prefix=""))
    assert np.array_equal(next(encoder.stream(["b"], prefix="a "))[0], encoder.encode("a b", prefix=""))
    assert np.array_equal(encoder.encode_query("b"), encoder.encode_queries("b"))
    assert np.array_equal(encoder.encode_document("b"), encoder.encode_corpus("b"))
    for options, message in (({"prompt": "query", "prefix": ""}, "one of them"), ({"prefix": 3}, "prefix is int")):
        with pytest.raises(InvalidOptionError, match=message):
            encoder.encode("a", **options)


def test_info_can_be_read_and_written(encoder):
    info = encoder.encode(["a", "b"], max_length=16).info
    assert info.run_seconds > 0
    assert info.tokenize_seconds > 0
    assert json.loads(json.dumps(info.to_dict()))["truncated"] == []
    assert "truncated=0 of 2" in repr(info)


def test_numpy_types_are_dtypes(encoder):
    assert encoder.encode("a", dtype=np.float16).dtype == np.float16
    with pytest.raises(InvalidOptionError, match="unknown dtype"):
        encoder.encode("a", dtype=np.float64)


def test_devices_of_other_libraries(demo_folder):
    assert Encoder(demo_folder, device=None).device
    with pytest.raises(InvalidOptionError, match="device='cuda:0'"):
        Encoder(demo_folder, device=0)


def test_threads(demo_folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert Encoder(demo_folder, device="cpu")._runner._cores.cores == 1
    monkeypatch.setattr("bgert.cpu_count.available_cpus", lambda: 2)
    assert Encoder(demo_folder, device="cpu", threads=2)._runner._cores.cores == 2
    with pytest.warns(DeviceWarning, match="threads is 3") as said:
        Encoder(demo_folder, device="cpu", threads=3)
    assert said[0].filename == __file__


def test_help_shows_the_options():
    for model in (bgert.Encoder, bgert.Reranker):
        for option in ("gpu_memory_limit: bytes", "max_length: tokens", "manifest: what", "tokenizer: its"):
            assert option in model.__doc__
        assert "run_info" not in dir(model)
    assert "query_max_length: tokens" in bgert.Reranker.__doc__


def test_similarity_is_that_of_sentence_transformers(encoder, demo_checkpoint):
    from sentence_transformers.util import cos_sim

    texts = ["a text", "another text", "the weather"]
    for dtype in ("float32", "float16", "int8"):
        rows = encoder.encode(texts, dtype=dtype)
        wide = np.asarray(rows, np.float32)
        for first, second in ((rows, rows), (rows[0], rows), (rows[:2], rows[2])):
            found = encoder.similarity(first, second)
            assert (type(found), found.dtype) == (np.ndarray, np.float32)
            expected = cos_sim(np.asarray(first, np.float32), np.asarray(second, np.float32)).numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)
        np.testing.assert_allclose(np.diag(encoder.similarity(wide, wide)), 1, atol=1e-6)
    bits = encoder.encode(texts, dtype="ubinary")
    for wrong in ((bits, bits), (rows, rows[:, :9]), (rows[None], rows), (["a"], rows)):
        with pytest.raises(InvalidOptionError, match="embeddings"):
            encoder.similarity(*wrong)


def test_the_logger_tells_what_happened_to_who_asks(demo_folder, caplog, capfd):
    with caplog.at_level(logging.INFO, "bgert"):
        opened = Encoder(demo_folder, device="cpu", threads=1, max_length=300)
        with pytest.warns(bgert.TruncationWarning):
            opened.encode(["word " * 400, "a"])
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith(f"opened {demo_folder} on cpu fp32 with onnxruntime ")
    assert first.endswith("kernels, 1 threads, 300 tokens at most")
    assert second == "1 of 2 inputs were longer than 300 tokens and were cut"
    assert capfd.readouterr() == ("", "")


def test_results_need_no_check_for_none_and_options_are_checked(tmp_path):
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    source = tmp_path / "typed.py"
    source.write_text(
        "import bgert\n"
        "result: bgert.Embeddings = bgert.Encoder('m').encode(['a'])\n"
        "print(result.info.device, bgert.Reranker('m').score([('a', 'b')]).info.score_kind)\n"
        "bgert.Encoder('m').encode('a', dtype='int9')\n"
    )
    said, _, _ = api.run(
        ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}", str(source)]
    )
    errors = [line for line in said.splitlines() if ": error: " in line]
    assert errors, said
    assert all("typed.py:4: " in line for line in errors), said
