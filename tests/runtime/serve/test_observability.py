"""Metrics, ids, the docs: what an operator sees."""

import re

import pytest

TE_NAMES = [
    "te_request_count", "te_request_success", "te_request_failure", "te_request_duration", "te_embed_count",
    "te_request_tokenization_duration", "te_request_queue_duration", "te_request_inference_duration",
    "te_embed_success", "te_embed_duration", "te_embed_tokenization_duration", "te_embed_queue_duration",
    "te_embed_inference_duration", "te_predict_count", "te_predict_success", "te_predict_duration",
    "te_request_input_length", "te_batch_next_size", "te_batch_next_tokens", "te_queue_size",
]  # fmt: skip
SAMPLE = re.compile(r'([a-z_:]+)(\{[a-z_]+="[^"\n]*"(,[a-z_]+="[^"\n]*")*\})? (-?[0-9.e+-]+|\+Inf)')


@pytest.fixture(scope="module")
def fresh(start, prompted_folder, reranker_folder):
    return start([prompted_folder, reranker_folder])


def families(text):
    found, name = {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in found, f"{name} twice"
            found[name] = (kind, {})
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            sample, value = line.rsplit(" ", 1)
            assert sample.startswith(name)
            assert sample not in found[name][1]
            found[name][1][sample] = float(value)
    return found


def test_all_metrics_are_there_before_the_first_request_and_have_the_format(fresh):
    reply = fresh.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = families(reply.body.decode())
    assert set(TE_NAMES) <= found.keys()
    assert found["te_request_failure"][1]['te_request_failure{err="overloaded"}'] == 0
    assert found["te_request_count"][1]['te_request_count{method="single"}'] == 0
    for name, (kind, samples) in found.items():
        assert samples or name in ("bgert_replies_total",), f"{name} is empty"
        if kind == "histogram":
            for sample in [sample for sample in samples if "_count" in sample]:
                bucket = sample.replace("_count{", "_bucket{").replace("_count", "_bucket")
                infinite = bucket[:-1] + ',le="+Inf"}' if bucket.endswith("}") else bucket + '{le="+Inf"}'
                assert samples[infinite] == samples[sample]
    assert found["bgert_model_info"][1]


def test_the_usual_parser_reads_them(fresh):
    parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
    parsed = {family.name for family in parser.text_string_to_metric_families(fresh.get("/metrics").body.decode())}
    assert set(TE_NAMES) <= parsed


def test_requests_are_counted(fresh):
    names = [
        'te_request_count{method="single"}',
        'te_embed_success{method="batch"}',
        'te_predict_success{method="batch"}',
        'te_request_failure{err="validation"}',
        "te_request_duration_count",
        "te_request_input_length_sum",
        'bgert_truncated_texts_total{model="tiny-encoder"}',
        'bgert_texts_total{model="tiny-reranker",lane="interactive"}',
        'bgert_refused_total{reason="not_found"}',
    ]
    before = [fresh.metric(name) for name in names]
    fresh.post("/embed", {"inputs": "word " * 100})
    fresh.post("/embed", {"inputs": ["a", "b"]})
    fresh.post("/rerank", {"query": "a", "texts": ["a", "b", "c"]})
    fresh.post("/embed", {"inputs": 3})
    fresh.post("/nowhere", {})
    after = [fresh.metric(name) for name in names]
    grown = [new - old for old, new in zip(before, after, strict=True)]
    assert grown[:5] == [1, 1, 1, 1, 3]
    assert grown[5] >= 64
    assert grown[6:] == [1, 3, 1]
    assert fresh.metric("te_queue_size") == 0


def test_ids_are_taken_made_and_told(fresh):
    given = fresh.get("/health", {"x-request-id": "abc-1", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"})
    assert given.headers["x-request-id"] == "abc-1"
    made = fresh.get("/health", {"x-request-id": "no good\tid"}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", made)
    fresh.wait_for(lambda: any(line["request_id"] == made for line in fresh.lines()))
    (line,) = [line for line in fresh.lines() if line["request_id"] == "abc-1"]
    assert line["trace_id"] == "a" * 32


def test_the_description_is_of_the_routes_that_are_there(fresh):
    described = fresh.get("/openapi.json").json
    assert described["openapi"].startswith("3.1")
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', fresh.get("/openapi.json").body.decode()))
    assert references <= described["components"]["schemas"].keys()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            reply = fresh.ask(method.upper(), path.replace("{name}", "tiny-encoder"), body)
            expected = 424 if path in ("/embed_all", "/embed_sparse") else 200
            assert reply.status == expected, (path, reply.body)
    assert {"/v1/embeddings", "/rerank", "/v2/embed", "/embed", "/", "/health", "/metrics"} <= described["paths"].keys()


def test_the_page_needs_no_network(fresh):
    reply = fresh.get("/docs")
    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/html")
    assert "/v1/embeddings" in text
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)
    assert "default-src 'none'" in reply.headers["content-security-policy"]


def test_browsers_are_let_in_where_they_are_named(start, prompted_folder, fresh):
    assert not any(name.startswith("access-control") for name in fresh.get("/health", {"origin": "http://a"}).headers)
    server = start([prompted_folder], "--cors-origin", "http://a")
    preflight = server.ask("OPTIONS", "/v1/embeddings", None, {"origin": "http://a"})
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "http://a"
    assert {"*", "authorization"} <= set(preflight.headers["access-control-allow-headers"].split(", "))
    assert "POST" in preflight.headers["access-control-allow-methods"]
    reply = server.ask("POST", "/embed", {"inputs": "a"}, {"origin": "http://a"})
    assert reply.headers["access-control-allow-origin"] == "http://a"
    assert "access-control-allow-origin" not in server.get("/health", {"origin": "http://b"}).headers
    refused = server.ask("POST", "/v1/embeddings", {"input": 3}, {"origin": "http://a"})
    assert refused.status == 400
    assert refused.headers["access-control-allow-origin"] == "http://a", "a page may read why"
    assert refused.headers["access-control-expose-headers"] == "*"
    assert server.stop() == 0
