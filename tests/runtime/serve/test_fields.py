"""Fields of a body: what would change the result is honoured or refused by its name, what would not is left aside."""

import json

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="the extra `serve` is not installed")

from bgert.serve.dialects.fields import CHANGING
from bgert.serve.health import Health
from bgert.serve.routes import routes
from bgert.serve.service import Service
from bgert.serve.settings import Settings

# Fields of our routes that change no result where they are not known.
HARMLESS = {"model", "user", "priority", "encoding_format", "ids", "instances", "skip_special_tokens"}
BODIES = {
    "/v1/embeddings": {"input": "a"},
    "/embeddings": {"input": ["a", "b"]},
    "/v1/embed": {"texts": ["a"]},
    "/v2/embed": {"texts": ["a"]},
    "/rerank": {"query": "q", "texts": ["a", "b"]},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v2/rerank": {"query": "q", "documents": ["a", "b"]},
    "/embed": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/predict": {"inputs": "a"},
    "/tokenize": {"inputs": "a"},
    "/decode": {"ids": [5]},
    "/vertex": {"instances": [{"inputs": "a"}]},
}
ROOTS = [{"inputs": "a"}, {"inputs": "a", "raw_scores": False}, BODIES["/rerank"], BODIES["/similarity"]]
TABLE = routes(Health(Service(Settings(folders=()))))
CASES = [*BODIES.items(), *(("/", body) for body in ROOTS), *(("/invocations", body) for body in ROOTS[:1])]


def words(reply):
    """What the dialect's client shows."""
    content = reply.json
    error = content.get("error", content.get("message"))
    return error["message"] if isinstance(error, dict) else error


def known(path, body):
    """The fields that the route takes with such a body."""
    if path in ("/", "/invocations"):
        where = "/rerank" if "query" in body else "/similarity" if isinstance(body["inputs"], dict) else "/embed"
        where = "/predict" if "raw_scores" in body else where
        # These choose what the route does.
        return set(TABLE[where].body.__struct_fields__) | {"parameters", "query", "inputs", "raw_scores"}
    return set(TABLE[path].body.__struct_fields__)


def test_every_field_of_a_route_is_in_one_of_the_two_tables():
    fields = {name for route in TABLE.values() if route.body for name in route.body.__struct_fields__}
    assert fields <= CHANGING.keys() | HARMLESS
    assert not CHANGING.keys() & HARMLESS
    assert {path for path, route in TABLE.items() if route.body} <= {path for path, _ in CASES} | {
        "/embed_all",
        "/embed_sparse",
    }


def without_ids(reply):
    return (
        {name: value for name, value in reply.json.items() if name != "id"}
        if isinstance(reply.json, dict)
        else reply.json
    )


@pytest.mark.parametrize(("path", "body"), CASES)
def test_what_would_change_the_result_is_refused_by_name(server, path, body):
    plain = server.post(path, body)
    assert plain.status == 200
    assert "x-bgert-ignored" not in plain.headers
    refused = 0
    for name, neutral in CHANGING.items():
        if name in known(path, body):
            continue
        reply = server.post(path, {**body, name: "something"})
        assert reply.status in (400, 422), (name, reply.body)
        assert name in words(reply), "the client is told which field it is"
        refused += 1
        for value in (None, *neutral):
            reply = server.post(path, {**body, name: value})
            assert reply.status == 200, (name, value, reply.body)
            assert without_ids(reply) == without_ids(plain)
    assert refused > 10


@pytest.mark.parametrize(("path", "body"), CASES)
def test_what_would_not_is_left_aside_and_told(server, path, body):
    plain = server.post(path, body)
    more = {"options": {"wait_for_model": True}, "x-trace": 1, "stream": None, "ключ": 1, "a\r\nb": 1}
    reply = server.post(path, {**body, **more})
    assert reply.status == 200
    assert without_ids(reply) == without_ids(plain)
    assert set(reply.headers["x-bgert-ignored"].split(",")) == {"options", "stream", "x-trace"}


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/", {"inputs": "a", "parameters": {"pooling": "max"}}, "parameters.pooling"),
        ("/", {"inputs": "a", "parameters": {"normalize": False}, "normalize": True}, "parameters.normalize"),
        ("/invocations", {"inputs": ["a"], "parameters": {"top_k": 1}}, "parameters.top_k"),
        ("/vertex", {"instances": [{"inputs": "a", "parameters": {"x": 1}}]}, "parameters.x"),
        ("/vertex", {"instances": [{"inputs": "a"}], "parameters": {"outputDimensionality": 8}}, "parameters"),
        ("/", {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"top_k": 1}}, "top_k"),
        ("/", {"inputs": {"source_sentence": "a", "sentences": ["b"], "metric": "dot"}}, "metric"),
        ("/v1/embeddings", {"input": [{"text": "a", "image": "b"}]}, "image"),
        ("/v1/embeddings", {"input": "a", "task": "code.query"}, "task"),
        ("/v1/embeddings", {"input": "a", "task": "retrieval.query", "prompt_name": "query"}, "task"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "text", "text": "a", "bold": 1}]}]}, "bold"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "only text"),
        ("/v2/embed", {"texts": ["a"], "images": ["b"]}, "images"),
        ("/rerank", {"query": "q", "texts": ["a"], "documents": ["b"]}, "documents"),
        ("/rerank", {"query": "q", "texts": ["a"], "max_tokens_per_doc": 3}, "max_tokens_per_doc"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "max_chunks_per_doc": 10}, "max_chunks_per_doc"),
        ("/v2/rerank", {"query": "q", "documents": ["long " * 300], "truncate": False}, "not to be cut"),
        ("/v2/rerank", {"query": "q", "documents": ["a"], "truncation_direction": "up"}, "truncation_direction"),
    ],
)
def test_fields_within_fields_and_those_that_do_not_go_together(server, path, body, name):
    reply = server.post(path, body)
    assert reply.status in (400, 422), reply.body
    assert name in words(reply)


def test_parameters_alone_are_not_ignored_by_a_server_of_an_encoder(start, prompted_folder, prompted):
    server = start([prompted_folder])
    text = "stone bear"
    plain = np.asarray(prompted.encode([text]))
    for body in ({"inputs": text}, {"inputs": text, "parameters": {}}, {"inputs": text, "parameters": {"top_k": None}}):
        assert np.float32(server.post("/", body).json).tobytes() == plain.tobytes()
    short = server.post("/", {"inputs": text, "parameters": {"dimensions": 4, "prompt_name": "query"}}).json
    assert np.float32(short).tobytes() == np.asarray(prompted.encode_queries([text], dimensions=4)).tobytes()
    refused = server.post("/", {"inputs": text, "parameters": {"function_to_apply": "none"}})
    assert refused.status == 422
    assert "parameters.function_to_apply" in refused.json["error"]
    assert server.post("/", {"inputs": text, "parameters": {"normalize": "x"}}).status == 422
    assert server.stop() == 0


def test_fields_that_are_taken_are_honoured(server, reranker, encoder):
    texts = ["stone", "bear panda", "water"]
    logits = np.asarray(reranker.score([("panda", text) for text in texts]))
    raw = server.post("/v2/rerank", {"query": "panda", "documents": texts, "raw_scores": True}).json["results"]
    assert np.float32([item["relevance_score"] for item in raw]).tolist() == sorted(logits.tolist(), reverse=True)
    told = server.post("/v1/rerank", {"query": "panda", "documents": texts, "return_text": True}).json["results"]
    assert [item["document"]["text"] for item in told] == [texts[item["index"]] for item in told]
    listed = server.post("/rerank", {"query": "panda", "texts": texts, "return_documents": True}).json
    assert [item["text"] for item in listed] == [texts[item["index"]] for item in listed]
    for value, header in ((False, "1"), (True, None)):
        reply = server.post("/v1/embeddings", {"input": "a", "normalized": value})
        assert reply.headers.get("x-bgert-normalized") == header
    body = {"input": "a text", "task": "text-matching"}
    vector = server.post("/v1/embeddings", body).json["data"][0]["embedding"]
    assert np.float32(vector).tobytes() == np.asarray(encoder.encode("a text")).tobytes()
    ids = server.post("/tokenize", {"inputs": "a panda", "model": "tiny-reranker"}).json
    assert ids == server.post("/tokenize?model=tiny-reranker", {"inputs": "a panda"}).json
    assert server.post("/decode", {"ids": [5], "model": "nobody"}).status == 404


def test_a_body_that_is_no_object_and_a_key_twice(server):
    assert server.post("/embed", b"[]").status == 422
    assert server.post("/", b"[]").status == 422
    assert server.post("/embed", b'{"inputs": "a", "inputs": "b"}').status == 200  # JSON says nothing of it: the last
    assert json.loads(server.post("/embed", b'{"nonsense": 1}').body)["error_type"] == "Validation"
