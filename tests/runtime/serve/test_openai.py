"""OpenAI's routes, against what `Encoder` returns."""

import base64

import numpy as np
import pytest

TEXTS = ["a first text", "Zwei Sätze 你好", "x", "a much longer text " * 30, "A FIRST TEXT"]


def vectors(reply):
    assert reply.status == 200, reply.body
    data = reply.json["data"]
    assert [item["index"] for item in data] == list(range(len(data)))
    found = [item["embedding"] for item in data]
    if isinstance(found[0], str):
        return np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in found])
    return np.array(found, np.float64).astype(np.float32)


def same_bits(left, right):
    return np.asarray(left, np.float32).tobytes() == np.asarray(right, np.float32).tobytes()


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_vectors_are_those_of_the_encoder_bit_for_bit(server, encoder, encoding):
    body = {"model": "m", "input": TEXTS, "encoding_format": encoding}
    reply = server.post("/v1/embeddings", body)
    assert same_bits(vectors(reply), encoder.encode(TEXTS))
    tokens = encoder.encode(TEXTS).info.tokens
    assert reply.json["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert reply.json["model"] == "all-MiniLM-L6-v2"
    assert reply.json["object"] == "list"
    assert {item["object"] for item in reply.json["data"]} == {"embedding"}


def test_one_text_and_fewer_dimensions(server, encoder):
    reply = server.post("/embeddings", {"input": "hello", "dimensions": 32, "user": None, "dimension": 3})
    assert same_bits(vectors(reply), [encoder.encode("hello", dimensions=32)])


@pytest.mark.filterwarnings("ignore::bgert.TruncationWarning")
def test_what_is_cut_is_said(server, encoder):
    texts = ["short", "word " * 400, "also short", "token " * 300]
    reply = server.post("/v1/embeddings", {"input": texts})
    assert same_bits(vectors(reply), encoder.encode(texts))
    assert reply.headers["x-bgert-truncated"] == "2"
    assert reply.headers["x-bgert-truncated-indices"] == "1,3"
    assert reply.json["usage"]["prompt_tokens"] == 2 * encoder.max_length + 3 + 4
    refused = server.post("/v1/embeddings", {"input": texts, "truncate": False})
    assert refused.status == 400
    assert "input 1" in refused.json["error"]["message"]
    assert "256" in refused.json["error"]["message"]


def test_token_ids_are_refused_with_the_words_that_help(server):
    for ids in ([[9906, 1917]], [9906, 1917]):
        reply = server.post("/v1/embeddings", {"input": ids})
        assert reply.status == 400
        assert "check_embedding_ctx_length=False" in reply.json["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "empty"),
        (b"{", 400, "JSON"),
        (b"[]", 400, "object"),
        (b'{"model":"m"}', 400, "input"),
        (b'{"input":3}', 400, "input"),
        (b'{"input":[]}', 400, "empty"),
        (b'{"input":""}', 400, "empty"),
        (b'{"input":["a",""]}', 400, "input 1"),
        (b'{"input":["a",[1]]}', 400, "token ids"),
        (b'{"input":"a","dimensions":0}', 400, "dimensions"),
        (b'{"input":"a","dimensions":385}', 400, "384"),
        (b'{"input":"a","dimensions":NaN}', 400, "JSON"),
        (b'{"input":"a","encoding_format":"hex"}', 400, "base64"),
        (b'{"input":"\xff"}', 400, "UTF-8"),
        (b'{"input":"\\ud800"}', 400, ""),
        (b'{"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ""),
        (b'{"input":["a"' + b',"a"' * 2048 + b"]}", 400, "2048"),
        (b'{"input":"a","model":"tiny-reranker"}', 400, "tiny-reranker"),
    ],
)
def test_mistakes_get_an_error_object(server, body, status, word):
    reply = server.post("/v1/embeddings", body)
    assert reply.status == status, reply.body
    error = reply.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert word in error["message"]
    assert error["type"] == "invalid_request_error"


def test_models(server):
    listed = server.get("/v1/models").json
    assert listed["object"] == "list"
    assert {model["id"] for model in listed["data"]} == {"all-MiniLM-L6-v2", "tiny-reranker"}
    assert server.get("/v1/models/tiny-reranker").json["object"] == "model"
    missing = server.get("/v1/models/BAAI%2Fbge-small")
    assert missing.status == 404
    assert "BAAI/bge-small" in missing.json["error"]["message"]
    assert missing.json["error"]["code"] == "model_not_found"


def test_health_needs_no_body(server):
    for path in ("/health", "/health/live", "/health/ready", "/ready", "/ping", "/"):
        reply = server.get(path)
        assert (reply.status, reply.body) == (200, b"")


def test_the_log_has_no_text_of_a_user(server):
    secret = "a text that nobody else should read"
    server.post("/v1/embeddings", {"input": secret, "user": secret}, {"x-request-id": "id-7", "authorization": secret})
    server.post("/nowhere/" + secret.replace(" ", "-"), secret)
    server.get("/health", {"x-request-id": "id-8"})
    server.wait_for(lambda: any(line["request_id"] == "id-8" for line in server.lines()))
    assert secret not in server.log.read_text("utf-8")
    (line,) = [line for line in server.lines() if line["request_id"] == "id-7"]
    assert line["status"] == 200
    assert (line["model"], line["texts"], line["truncated"]) == ("all-MiniLM-L6-v2", 1, 0)
    assert line["tokens"] == 9
