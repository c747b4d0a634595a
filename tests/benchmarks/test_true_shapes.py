"""True shapes, with small ones in their place."""

import json
import sys

import pytest

import random_checkpoint
import true_shapes
from shape_tokenizers import KINDS
from true_shapes import SHAPES, Shape

WORDS = ["the", "of", "model", "day", "copy", "file", "list", "return", "##s", "a", "b", "c", "d", "e", "f"]


@pytest.fixture
def tokenizers(tmp_path):
    folder = tmp_path / "tokenizers"
    (folder / "bert-base-uncased").mkdir(parents=True)
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "bert-base-uncased" / "vocab.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


def test_every_shape_is_known():
    geometries = {*random_checkpoint.GEOMETRIES, *random_checkpoint.PUBLISHED}
    assert set(random_checkpoint.PUBLISHED) <= {shape.geometry for shape in SHAPES.values()} <= geometries
    assert {shape.tokenizer for shape in SHAPES.values()} == set(KINDS)


def test_a_shape_from_its_weights_to_its_vectors(tokenizers, tmp_path, monkeypatch):
    small = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
             "vocab_size": 40, "max_position_embeddings": 130}  # fmt: skip
    published = random_checkpoint.PUBLISHED
    monkeypatch.setitem(published, "all-mpnet-base-v2", published["all-mpnet-base-v2"] | small)
    folder = tmp_path / "work"
    folder.mkdir()
    entry = true_shapes.measured(Shape("all-mpnet-base-v2", "mpnet", 100), tokenizers, folder)
    assert entry["geometry"] == ["mpnet", 2, 64, 4, 96, 40]
    assert (entry["max_tokens"], entry["positions"], entry["columns"]) == (100, 128, 64)
    assert "of 2 to 128 tokens" in entry["corpus"]
    assert 0 < entry["max_abs_error"] < 2e-5
    assert entry["min_cosine"] > 0.999999
    assert set(entry["calls"]) == {"encode", "encode_queries", "encode_corpus"}
    assert entry["graph_bytes"] > 64 * 96 * 4
    assert entry["peak_rss_bytes"] > 50e6
    assert entry["cpu_seconds"] > 0


def test_what_is_done_is_not_done_again_and_what_failed_is(tokenizers, tmp_path, monkeypatch):
    done = []

    def measured(shape, tokenizers, folder):
        done.append(shape.geometry)
        (folder / "large").write_text("")
        if shape.geometry == "broken":
            raise RuntimeError("exit status 3: no memory")
        return {"max_abs_error": 1e-7}

    monkeypatch.setattr(true_shapes, "measured", measured)
    monkeypatch.setattr(true_shapes, "SHAPES", {name: Shape(name, "bert") for name in ("one", "broken", "two")})
    results, work = tmp_path / "results.json", tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(
        "sys.argv", ["x", "--tokenizers", str(tokenizers), "--results", str(results), "--work", str(work)]
    )
    assert true_shapes.main() == 1
    assert done == ["one", "broken", "two"]
    shapes = json.loads(results.read_text())["shapes"]
    assert list(shapes) == done
    assert shapes["broken"]["error"] == "exit status 3: no memory"
    assert list(work.iterdir()) == []
    done.clear()
    assert true_shapes.main() == 1
    assert done == ["broken"]
    done.clear()
    monkeypatch.setattr("sys.argv", [*sys.argv, "--only", "two"])
    assert true_shapes.main() == 0
    assert done == ["two"]
    monkeypatch.setattr("sys.argv", [*sys.argv, "--only", "three"])
    with pytest.raises(SystemExit):
        true_shapes.main()


def test_a_child_that_fails_says_why(capfd):
    with pytest.raises(RuntimeError, match="exit status 3: words"):
        true_shapes._child("-c", "print('words'); raise SystemExit(3)")
