"""The routes of text-embeddings-inference, against `Encoder`, `Reranker` and `Tokenizer`."""

import json

import numpy as np
import pytest

from bgert.batching import PackedBatch

LONG = "the text model with a list of numbers in it " * 10 + "read the file"


@pytest.fixture(scope="module")
def served(start, prompted_folder, reranker_folder):
    return start([prompted_folder, reranker_folder])


def same(left, right):
    assert np.asarray(left, np.float64).astype(np.float32).tobytes() == np.asarray(right, np.float32).tobytes()


def test_embed_takes_a_text_or_many(served, prompted):
    one = served.post("/embed", {"inputs": "a text"})
    assert len(one.json) == 1
    same(one.json, prompted.encode(["a text"]))
    same(served.post("/embed", {"inputs": ["a text", "b"]}).json, prompted.encode(["a text", "b"]))
    assert one.headers["x-compute-type"] == "cpu+fp32"
    assert one.headers["x-compute-tokens"] == str(prompted.encode("a text").info.tokens)
    assert one.headers["x-compute-characters"] == "6"
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert int(one.headers[name]) >= 0


def test_prompts_are_the_folders(served, prompted):
    same(served.post("/embed", {"inputs": "a", "prompt_name": "query"}).json[0], prompted.encode_queries("a"))
    unknown = served.post("/embed", {"inputs": "a", "prompt_name": "passage"})
    assert unknown.status == 422
    assert unknown.json["error_type"] == "Validation"
    assert "document, query" in unknown.json["error"]


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
@pytest.mark.parametrize("path", ["/embed", "/"])
def test_long_texts_lose_the_end_that_was_named(served, prompted, path):
    right = served.post(path, {"inputs": LONG})
    left = served.post(path, {"inputs": LONG, "truncation_direction": "left"})
    assert right.headers["x-bgert-truncated"] == left.headers["x-bgert-truncated"] == "1"
    same(right.json[0], prompted.encode(LONG))
    ids = prompted.tokenizer.encode_batch([LONG], truncation_side="left").ids
    assert ids[-2] == prompted.tokenizer.encode("file")[1]
    assert right.json != left.json
    with pytest.raises(AssertionError):
        same(left.json, right.json)
    kept = PackedBatch(ids, np.array([0, len(ids)], np.int32), np.zeros_like(ids))
    same(left.json, prompted.backend.run(kept))
    refused = served.post(path, {"inputs": ["a", LONG], "truncate": False})
    assert refused.status == 422
    assert "inputs 1" in refused.json["error"]
    assert served.post(path, {"inputs": LONG, "truncation_direction": "up"}).status == 422


def test_a_server_that_does_not_cut(start, prompted_folder):
    server = start([prompted_folder], "--no-truncate")
    assert server.post("/embed", {"inputs": LONG}).status == 422
    assert server.post("/embed", {"inputs": LONG, "truncate": True}).status == 200
    assert server.post("/v1/embeddings", {"input": LONG}).status == 400
    assert server.get("/info").json["auto_truncate"] is False
    assert server.stop() == 0


def test_a_graph_that_normalises_says_so(served, prompted):
    reply = served.post("/embed", {"inputs": "a", "normalize": False})
    same(reply.json[0], prompted.encode("a"))
    assert reply.headers["x-bgert-normalized"] == "1"
    assert "x-bgert-normalized" not in served.post("/embed", {"inputs": "a"}).headers


def test_a_graph_that_does_not_is_normalised_where_that_is_asked_for(
    start, write_model, sentence_transformers_files, tmp_path
):
    from bgert import Encoder
    from bgert_export import export

    files = sentence_transformers_files("mean", normalize=False)
    export(write_model(tmp_path / "checkpoint", files=files), tmp_path / "plain", verify=False)
    encoder = Encoder(tmp_path / "plain")
    server = start([tmp_path / "plain"])
    texts = ["a text", "another", "the third one"]
    raw = np.asarray(encoder.encode(texts))
    assert abs(np.linalg.norm(raw[0]) - 1) > 0.1
    same(server.post("/embed", {"inputs": texts, "normalize": False}).json, raw)
    unit = np.array(server.post("/embed", {"inputs": texts}).json)
    np.testing.assert_allclose(unit, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
    short = np.array(server.post("/embed", {"inputs": texts, "dimensions": 8}).json)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    vectors = [item["embedding"] for item in server.post("/v1/embeddings", {"input": texts}).json["data"]]
    same(vectors, raw)
    assert server.stop() == 0


def test_rerank_scores(served, reranker):
    texts = ["a file", "the folder", "some text", "a file"]
    logits = reranker.score([("folder", text) for text in texts])
    reply = served.post("/rerank", {"query": "folder", "texts": texts, "raw_scores": True, "return_text": True}).json
    assert [rank["index"] for rank in reply] == np.argsort(-logits, kind="stable").tolist()
    same([rank["score"] for rank in reply], np.sort(logits)[::-1])
    assert [rank["text"] for rank in reply] == [texts[rank["index"]] for rank in reply]
    assert served.post("/rerank", {"query": "", "texts": texts}).status == 400
    assert served.post("/rerank", {"query": "a", "texts": []}).status == 400


def test_documents_are_cut_at_their_own_limit(served, reranker):
    body = {"model": "m", "query": "which day", "documents": ["text model " * 10, "copy"], "max_tokens_per_doc": 4}
    reply = served.post("/v2/rerank", body)
    expected = reranker.rank("which day", ["text model text model", "copy"], sigmoid=True)
    assert [result["index"] for result in reply.json["results"]] == [index for index, _ in expected]
    same([result["relevance_score"] for result in reply.json["results"]], [score for _, score in expected])
    assert reply.headers["x-bgert-truncated-indices"] == "0"
    assert "1 documents" in reply.json["meta"]["warnings"][0]


def test_predict(served, reranker):
    single = served.post("/predict", {"inputs": ["which day", "the day"]}).json
    same([single[0]["score"]], reranker.score([("which day", "the day")], sigmoid=True))
    assert single[0]["label"] == "LABEL_0"
    many = served.post("/predict", {"inputs": [["a", "b"], ["c", "d"]], "raw_scores": True}).json
    same([labels[0]["score"] for labels in many], reranker.score([("a", "b"), ("c", "d")]))
    assert served.post("/predict", {"inputs": ["a", "b", "c"]}).status == 422
    assert served.post("/predict", {"inputs": [["a"], ["b", "c"]]}).status == 422


def test_several_labels(start, make_reranker_checkpoint, tmp_path):
    from bgert import Reranker
    from bgert_export import export

    export(make_reranker_checkpoint(num_labels=3), tmp_path / "classes", verify=False)
    server = start([tmp_path / "classes"])
    logits = Reranker(tmp_path / "classes").score([("a", "b")])
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for path in ("/predict", "/"):
        labels = server.post(path, {"inputs": ["a", "b"]}).json
        order = np.argsort(-logits[0]).tolist()
        assert [label["label"] for label in labels] == [f"LABEL_{index}" for index in order]
        np.testing.assert_allclose([label["score"] for label in labels], expected[0][order], atol=1e-6)
    assert server.post("/rerank", {"query": "a", "texts": ["b"]}).status == 400
    assert server.get("/info").json["model_type"]["classifier"]["label2id"]["LABEL_2"] == 2
    assert server.stop() == 0


def test_tokenize_and_decode(served, prompted):
    text = "the day is 今天"
    (tokens,) = served.post("/tokenize", {"inputs": text}).json
    expected = prompted.tokenizer.tokens(text)
    assert tokens == [token._asdict() for token in expected]
    assert tokens[0]["start"] is None
    assert [text[token["start"] : token["stop"]] for token in tokens[1:-1]] == [token["text"] for token in tokens[1:-1]]
    assert [token["special"] for token in tokens] == [True] + [False] * (len(tokens) - 2) + [True]
    bare = served.post("/tokenize", {"inputs": [text, "a"], "add_special_tokens": False, "prompt_name": "query"}).json
    assert len(bare) == 2
    assert not any(token["special"] for row in bare for token in row)
    assert [token["text"] for token in bare[1]] == ["the", "query", "is", "a"]
    ids = [token["id"] for token in tokens]
    decoded = served.post("/decode", {"ids": ids})
    assert decoded.json == [prompted.tokenizer.decode(ids, skip_special_tokens=True)]
    kept = served.post("/decode", {"ids": [ids, ids[1:2]], "skip_special_tokens": False}).json
    assert kept == [prompted.tokenizer.decode(ids), "the"]
    assert served.post("/decode", {"ids": [10**6]}).status == 422
    of_reranker = served.post("/tokenize?model=tiny-reranker", {"inputs": text})
    assert of_reranker.status == 200
    assert served.post("/tokenize?model=none", {"inputs": text}).status == 404


def test_info(served):
    encoder = served.get("/info").json
    assert encoder["model_type"] == {"embedding": {"pooling": "mean"}}
    assert encoder["served_model_name"] == "tiny-encoder"
    assert encoder["max_input_length"] == 64
    assert encoder["max_client_batch_size"] == 2048
    reranker = served.get("/info?model=tiny-reranker").json
    assert reranker["model_type"]["reranker"]["id2label"] == {"0": "LABEL_0"}


def test_embed_sparse_of_a_splade_model(start, write_model, make_config, make_weights, tmp_path):
    from bgert import Encoder
    from bgert_export import export

    config = make_config(architectures=["BertForMaskedLM"])
    weights = make_weights(config)
    draw, head = np.random.default_rng(3), "cls.predictions.transform"
    for name, shape in ((f"{head}.dense.weight", (64, 64)), ("cls.predictions.bias", (config["vocab_size"],))):
        weights[name] = (0.3 * draw.standard_normal(shape)).astype(np.float32)
    weights[f"{head}.dense.bias"] = weights[f"{head}.LayerNorm.bias"] = np.zeros(64, np.float32)
    weights[f"{head}.LayerNorm.weight"] = np.ones(64, np.float32)
    folder = write_model(tmp_path / "checkpoint", config=config, weights=weights)
    export(folder, tmp_path / "splade", pooling="splade", verify=False)
    server, texts = start([tmp_path / "splade"]), ["copy a file", "the text of the day"]
    found = server.post("/embed_sparse", {"inputs": texts}).json
    expected = Encoder(tmp_path / "splade").encode_outputs(texts).sparse
    assert 0 < len(found[0]) < config["vocab_size"]
    for items, vector in zip(found, expected, strict=True):
        assert [item["index"] for item in items] == vector.indices.tolist()
        same([item["value"] for item in items], vector.values)
    assert server.post("/embed_sparse", {"inputs": "copy a file"}).json == found[:1]
    assert server.post("/embed_sparse", {"inputs": "a", "dimensions": 8}).status == 422
    assert server.get("/info").json["model_type"] == {"embedding": {"pooling": "splade"}}


def test_vertex_and_invocations(served, prompted):
    reply = served.post("/vertex", {"instances": [{"inputs": "a"}, {"query": "a", "texts": ["b"]}]}).json
    same(reply["predictions"][0][0], prompted.encode("a"))
    assert reply["predictions"][1][0]["index"] == 0
    same(served.post("/invocations", {"inputs": "a"}).json[0], prompted.encode("a"))


def test_what_is_not_served_is_said(served):
    for path in ("/embed_all", "/embed_sparse"):
        reply = served.post(path, {"inputs": "a"})
        assert (reply.status, reply.json["error_type"]) == (424, "Backend")
    assert served.post("/embed?model=tiny-reranker", {"inputs": "a"}).status == 424
    missing = served.get("/v1/chat/completions")
    assert missing.status == 404
    assert "/docs" in missing.json["error"]["message"]
    wrong = served.get("/embed")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")


def test_token_ids_where_they_are_allowed(start, prompted_folder, prompted):
    server = start([prompted_folder], "--token-ids")
    ids = prompted.tokenizer.encode_batch(["the day", "a"]).tolist()
    same(server.post("/embed", {"inputs": ids}).json, prompted.encode(["the day", "a"]))
    vectors = server.post("/v1/embeddings", {"input": ids[0]}).json
    same([vectors["data"][0]["embedding"]], prompted.encode(["the day"]))
    assert vectors["usage"]["prompt_tokens"] == len(ids[0])
    for wrong in ([[10**6]], [[-1]], [[]], [[1] * 65], [1, [2]], [["a"]]):
        assert server.post("/embed", {"inputs": wrong}).status in (400, 422)
    assert server.stop() == 0


def test_several_models_of_a_kind(start, demo_folder, prompted_folder, encoder, prompted):
    server = start([demo_folder, prompted_folder], "--name", "large", "--name", "small")
    for name, model in (("large", encoder), ("small", prompted), ("tiny-encoder", prompted)):
        reply = server.post("/v1/embeddings", {"input": "a", "model": name}).json
        same([reply["data"][0]["embedding"]], [model.encode("a")])
        same(server.post(f"/embed?model={name}", {"inputs": "a"}).json, [model.encode("a")])
    unknown = server.post("/v1/embeddings", {"input": "a", "model": "m"})
    assert unknown.status == 404
    assert "large, small" in unknown.json["error"]["message"]
    assert server.post("/embed", {"inputs": "a"}).status == 422
    assert server.post("/rerank", {"query": "a", "texts": ["b"]}).status == 400
    assert server.stop() == 0


def test_a_unix_socket(start, prompted_folder, tmp_path):
    import socket

    path = tmp_path / "bgert.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = start([prompted_folder], "--uds", str(path))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    assert json.loads(received.split(b"\r\n\r\n", 1)[1])["data"][0]["id"] == "tiny-encoder"
    assert server.stop() == 0
    assert not path.exists()
