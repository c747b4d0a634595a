"""A model folder whose tokenizer HF `tokenizers` runs: what the commands say of it, and what there is without it."""

import base64
import http.client
import importlib.util
import json
import multiprocessing
import pickle
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import hf_tokenizers_data as data
from bgert import Encoder
from bgert.commands import doctor
from bgert.commands.main import main
from bgert_export import export


@pytest.fixture(scope="module")
def folder(write_model, make_config, tmp_path_factory):
    root = tmp_path_factory.mktemp("huggingface")
    tokenizer = data.wordlevel()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    files = {"tokenizer.json": json.loads(tokenizer.to_str()), "tokenizer_config.json": settings}
    source = write_model(root / "source", config=make_config(vocab_size=tokenizer.get_vocab_size()), files=files)
    (source / "vocab.txt").unlink()
    export(source, root / "model", pooling="cls", normalize=True, verify=False, tokenizer="huggingface")
    return root / "model"


ALONE = """
import sys
import bgert
if sys.argv[2] == "without":
    sys.modules["tokenizers"] = None
try:
    print(bgert.Encoder(sys.argv[1]).encode(["the text"]).shape)
except bgert.errors.BgertError as error:
    print(type(error).__name__, error)
print("tokenizers" in sys.modules and sys.modules["tokenizers"] is not None)
"""


def alone(folder, *arguments):
    done = subprocess.run([sys.executable, "-c", ALONE, str(folder), *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_without_the_package_the_error_names_the_extra(folder):
    said, loaded = alone(folder, "without")
    assert said.startswith(
        "EngineNotInstalledError the tokenizer of this model is run by HF tokenizers, which is not here"
    )
    assert said.endswith("install the extra `hf-tokenizers` (README, Install)")
    assert loaded == "False"


def test_the_package_is_loaded_for_such_a_folder_alone(folder, demo_folder):
    assert alone(folder, "with") == ["(1, 64)", "True"]
    assert alone(demo_folder, "with") == ["(1, 384)", "False"]


def test_the_commands_say_that_it_is_rust(folder, demo_folder, capsys):
    assert main(["info", str(folder)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("tokenizer "))
    assert "HF tokenizers makes the ids, a package built in Rust, at its speed" in line
    assert main(["info", str(demo_folder)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["tokenizer"] == "wordpiece, bgert's own"
    main(["doctor"])
    report = capsys.readouterr().out
    line = next(line for line in report.splitlines() if line.startswith("extra hf-tokenizers"))
    assert "built in Rust, for model folders exported with --tokenizer huggingface alone" in line
    assert doctor.examine()["packages"]["tokenizers"] is not None
    assert main(["tokenize", str(folder), "the file"]) == 0
    assert json.loads(capsys.readouterr().out) == data.wordlevel().encode("the file").ids


def test_it_pickles_and_forks(folder):
    encoder = Encoder(folder, device="cpu", threads=2)
    vector = encoder.encode("the text of a file")
    tokenizer = pickle.loads(pickle.dumps(encoder.tokenizer))
    assert tokenizer.encode("the file").tolist() == encoder.tokenizer.encode("the file").tolist()
    many = ["the text of a file"] * 200
    assert (encoder.encode(many) == vector).all()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert (pool.apply_async(encoder.encode, (many,)).get(60) == vector).all()


def test_characters_that_a_charsmap_deletes_do_not_move_chunks(tool):
    """The package counts characters from the first that it keeps; what is cut off by that would be lost."""
    from bgert.tokenizer.huggingface import HuggingFaceModel

    blob = tool("charsmap_builder").charsmap({"\x01": "", "\x02": "", "A": "a"})
    body = json.loads(data.wordlevel().to_str())
    body["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}
    model = HuggingFaceModel(json.dumps(body).encode())
    for text in ("\x01\x02\x01the file", "the \x01file"):
        ids, spans = model.encode_spans(text, split_special_tokens=False, as_hf=False)
        assert [text[start:stop] for start, stop in spans.tolist()] == ["the", "file"]
        assert ids.tolist() == [5, 23]


def test_scores_of_unigram_are_those_that_are_written():
    from bgert.tokenizer.huggingface import open_library

    tokenizer = data.odd_unigram()
    body = json.loads(tokenizer.to_str())
    print("seed 3")
    draw = np.random.default_rng(3)
    for piece in body["model"]["vocab"][5:]:
        piece[1] = -float(draw.uniform(3, 12))
    library = open_library(json.dumps(body).encode())
    assert json.loads(library.to_str())["model"]["vocab"] == body["model"]["vocab"]


@pytest.mark.skipif(importlib.util.find_spec("httptools") is None, reason="the extra serve is not installed")
def test_the_server_answers_by_it(folder, tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as errors:
        command = [sys.executable, "-m", "bgert", "serve", str(folder), "--port", "0", "--no-access-log"]
        server = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not (found := re.search(r"ready on http://127.0.0.1:(\d+)", log.read_text())):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.05)
        client = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60)
        texts = ["the text", "nowhere the file"]
        client.request("POST", "/v1/embeddings", json.dumps({"input": texts}))
        reply = json.loads(client.getresponse().read())
        expected = Encoder(folder, device="cpu").encode(texts)
        np.testing.assert_allclose([row["embedding"] for row in reply["data"]], expected, atol=1e-6)
        client.request("POST", "/tokenize", json.dumps({"inputs": ["the file"]}))
        tokens = json.loads(client.getresponse().read())[0]
        assert [token["id"] for token in tokens] == data.wordlevel().encode("the file").ids
        client.close()
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.wait()
