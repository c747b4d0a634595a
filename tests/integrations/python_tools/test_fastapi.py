"""examples/fastapi_app.py, with many requests at once."""

import asyncio
import importlib.util
from pathlib import Path

import httpx
import numpy as np

APP = Path(__file__).resolve().parents[3] / "examples" / "fastapi_app.py"


def test_requests_at_once_get_their_own_vectors(encoder, models, monkeypatch):
    monkeypatch.setenv("BGERT_MODEL", str(models["exported-minilm"]))
    spec = importlib.util.spec_from_file_location("fastapi_app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    bodies = [
        {"texts": [f"text {number}", "another"][: 1 + number % 2], "query": number % 3 == 0} for number in range(40)
    ]

    async def ask():
        async with module.app.router.lifespan_context(module.app):
            transport = httpx.ASGITransport(module.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
                good = await asyncio.gather(*(client.post("/embed", json=body) for body in bodies))
                return good, await client.post("/embed", content='{"texts": ["\\ud800"]}')

    replies, bad = asyncio.run(ask())
    for body, reply in zip(bodies, replies, strict=True):
        call = encoder.encode_queries if body["query"] else encoder.encode_corpus
        expected = call(body["texts"])
        assert np.array_equal(np.array(reply.json()["vectors"], np.float32), expected)
        assert (reply.json()["tokens"], reply.json()["truncated"]) == (expected.info.tokens, 0)
    assert bad.status_code == 422
