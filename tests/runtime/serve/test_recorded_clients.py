"""What thirty clients send, replayed byte for byte, against what `Encoder` and `Reranker` return.

`client_requests.jsonl` was recorded from the clients it names, with keys, hosts and random ids blanked.
"""

import base64
import contextlib
import json
from http.client import HTTPResponse
from pathlib import Path

import numpy as np
import pytest

LINES = (Path(__file__).parent / "client_requests.jsonl").read_text("utf-8").split("\n")[:-1]
RECORDED = [json.loads(line) for line in LINES]


def raw(recorded):
    body = recorded["body"].encode()
    lines = [f"{recorded['method']} {recorded['path']} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in recorded["headers"]]
    if body and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in recorded["headers"]):
        lines.append(f"content-length: {len(body)}")
    chunked = any(name.lower() == "transfer-encoding" for name, _ in recorded["headers"])
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return "\r\n".join([*lines, "", ""]).encode() + body


def replay(server, recorded):
    with server.socket() as connection:
        connection.sendall(raw(recorded))
        with contextlib.closing(HTTPResponse(connection, method=recorded["method"])) as response:
            response.begin()
            return response.status, dict(response.getheaders()), response.read()


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("another\nK\n")
    return path


@pytest.fixture(scope="module")
def named(start, prompted_folder, reranker_folder):
    return start([prompted_folder, reranker_folder], "--name", "BAAI/bge-small", "--name", "a-reranker")


@pytest.fixture(scope="module")
def locked(start, reranker_folder, key_file):
    return start([reranker_folder], "--api-key-file", str(key_file))


@pytest.mark.parametrize("recorded", RECORDED, ids=[f"{r['client']} {i}" for i, r in enumerate(RECORDED)])
def test_every_recorded_request(named, prompted, reranker, recorded):
    status, headers, content = replay(named, recorded)
    path, body = recorded["path"], json.loads(recorded["body"] or "{}")
    if recorded["method"] == "GET":
        assert status == 200
        assert "BAAI/bge-small" in content.decode()
        return
    if any(isinstance(item, (int, list)) for item in body.get("input", ())):
        assert status == 400
        assert "check_embedding_ctx_length=False" in json.loads(content)["error"]["message"]
        return
    if body.get("output_dimension", 0) > prompted.dimensions:
        assert status == 400
        assert f"1 to {prompted.dimensions}" in json.loads(content)["message"]
        return
    assert status == 200, content
    assert headers["content-type"] == "application/json"
    check = CHECKS[path if path != "/" else root_kind(body)]
    check(json.loads(content), body, prompted, reranker)


def root_kind(body):
    if isinstance(body["inputs"], dict):
        return "/similarity"
    return "/predict" if "parameters" in body else "/embed"


def same(left, right):
    assert np.asarray(left, np.float64).astype(np.float32).tobytes() == np.asarray(right, np.float32).tobytes()


def openai(reply, body, encoder, reranker):
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    expected = encoder.encode(texts, dimensions=body.get("dimensions"))
    vectors = [item["embedding"] for item in reply["data"]]
    if body.get("encoding_format") == "base64":
        vectors = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in vectors]
    same(vectors, expected)
    assert [item["index"] for item in reply["data"]] == list(range(len(texts)))
    assert reply["usage"]["prompt_tokens"] == expected.info.tokens
    assert reply["model"] == "BAAI/bge-small"


def tei_embed(reply, body, encoder, reranker):
    texts = [body["inputs"]] if isinstance(body["inputs"], str) else body["inputs"]
    same(reply, encoder.encode(texts, prompt=body.get("prompt_name"), dimensions=body.get("dimensions")))


def similarity(reply, body, encoder, reranker):
    source, sentences = body["inputs"]["source_sentence"], body["inputs"]["sentences"]
    vectors = encoder.encode([source, *sentences])
    np.testing.assert_allclose(reply, vectors[1:] @ vectors[0], atol=1e-6)


def predict(reply, body, encoder, reranker):
    ((label,),) = reply  # what pipelines of transformers give for a text; the client takes the first list
    assert label.keys() == {"score", "label"}
    assert 0 <= label["score"] <= 1


def cohere_embed(reply, body, encoder, reranker):
    texts = body.get("texts") or [given["content"][0]["text"] for given in body["inputs"]]
    encode = {"search_query": encoder.encode_queries, "search_document": encoder.encode_corpus}[body["input_type"]]
    dimensions = body.get("output_dimension")
    expected = encode(texts, dimensions=dimensions)
    embeddings = reply["embeddings"]
    if isinstance(embeddings, dict):
        assert reply["response_type"] == "embeddings_by_type"
        assert embeddings.keys() == set(body.get("embedding_types") or ["float"])
        same(embeddings["float"], expected)
        if "int8" in embeddings:
            assert embeddings["int8"] == encode(texts, dtype="int8").tolist()
        if "base64" in embeddings:
            same([np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings["base64"]], expected)
    else:
        assert reply["response_type"] == "embeddings_floats"
        same(embeddings, expected)
    assert reply["texts"] == texts
    assert reply["meta"]["billed_units"]["input_tokens"] == expected.info.tokens


def tei_rerank(reply, body, encoder, reranker):
    expected = reranker.rank(body["query"], body["texts"], top_k=body.get("top_n"), sigmoid=True)
    assert [rank["index"] for rank in reply] == [index for index, _ in expected]
    same([rank["score"] for rank in reply], [score for _, score in expected])
    if body.get("return_text"):
        assert [rank["text"] for rank in reply] == [body["texts"][index] for index, _ in expected]


def rerank(reply, body, encoder, reranker):
    if "texts" in body:
        return tei_rerank(reply, body, encoder, reranker)
    texts = [given if isinstance(given, str) else as_text(given, body) for given in body["documents"]]
    expected = reranker.rank(body["query"], texts, top_k=body.get("top_n"), sigmoid=True)
    results = reply["results"]
    assert [result["index"] for result in results] == [index for index, _ in expected]
    same([result["relevance_score"] for result in results], [score for _, score in expected])
    if body.get("return_documents"):
        assert [result["document"] for result in results] == [{"text": texts[index]} for index, _ in expected]
    else:
        assert all("document" not in result for result in results)
    assert reply["meta"]["billed_units"] == {"search_units": 1}
    assert reply["usage"]["total_tokens"] == reranker.score([(body["query"], text) for text in texts]).info.tokens
    assert reply["model"] == "a-reranker"
    return None


def as_text(document, body):
    return "\n".join(f"{name}: {document[name]}" for name in body["rank_fields"] if name in document)


CHECKS = {
    "/v1/embeddings": openai,
    "/embeddings": openai,
    "/embed": tei_embed,
    "/similarity": similarity,
    "/predict": predict,
    "/v1/embed": cohere_embed,
    "/v2/embed": cohere_embed,
    "/rerank": rerank,
    "/v1/rerank": rerank,
    "/v2/rerank": rerank,
}


def test_a_thousand_texts_as_langchain_sends_them(named, prompted):
    body = {"model": "m", "input": ["x"] * 1000, "encoding_format": "base64"}
    reply = named.post("/v1/embeddings", body)
    openai(reply.json, body, prompted, None)


@pytest.mark.parametrize("value", ["Bearer K", "bearer K", "K", "Bearer Bearer K", "Bearer another"])
def test_keys_that_are_taken(locked, value):
    assert locked.get("/v1/models", {"authorization": value}).status == 200
    assert locked.get("/v1/models", {"x-api-key": value.split()[-1]}).status == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer k", "Bearer K K", "Basic K", "Bearer \xff"])
def test_keys_that_are_not(locked, value):
    for method, path in (("GET", "/v1/models"), ("POST", "/embed"), ("POST", "/"), ("GET", "/info")):
        reply = locked.ask(method, path, {"inputs": "a"} if method == "POST" else None, {"authorization": value})
        assert reply.status == 401
        assert reply.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/", "/metrics", "/ping"):
        assert locked.get(path).status == 200
