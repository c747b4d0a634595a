"""OpenAI's own client."""

import asyncio
import json
import subprocess

import openai
from asking import (
    DIMENSIONS,
    LONG,
    README_ADDRESS,
    README_CURL,
    README_PYTHON,
    README_TEXTS,
    STRICT,
    TEXTS,
    URL,
    Busy,
    call,
    check_refused,
    check_vectors,
    main,
    tokens,
)

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none")
strict = openai.OpenAI(base_url=f"{STRICT}/v1", api_key="none")
MODEL = "minilm"


def vectors(reply):
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return [item.embedding for item in reply.data]


@call("the README's lines, as printed but for the port, with curl and with this client")
def readme():
    (listed,) = README_TEXTS
    texts = json.loads(listed)
    assert README_CURL.count(README_ADDRESS) == README_PYTHON.count(README_ADDRESS) == 1
    found = {}
    exec(README_PYTHON.replace(README_ADDRESS, URL), found)
    check_vectors(vectors(found["reply"]), texts)
    done = subprocess.run(
        ["sh", "-c", README_CURL.replace(README_ADDRESS, URL)], capture_output=True, text=True, check=True
    )
    assert f'"input": {listed}' in README_CURL, "curl and the client ask the same"
    check_vectors([item["embedding"] for item in json.loads(done.stdout)["data"]], texts)


@call("embeddings.create: a list, base64 by default")
def base64():
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    check_vectors(vectors(reply))
    assert reply.model == MODEL
    assert reply.usage.prompt_tokens == reply.usage.total_tokens == tokens()


@call("embeddings.create: one text")
def one():
    check_vectors(vectors(client.embeddings.create(model=MODEL, input=TEXTS[0])), TEXTS[:1])


@call("embeddings.create: floats")
def floats():
    check_vectors(vectors(client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")))


@call("embeddings.create: dimensions")
def dimensions():
    def ask(count, **more):
        return client.embeddings.create(model=MODEL, input=TEXTS, dimensions=count, **more)

    check_vectors(vectors(ask(DIMENSIONS)), kind="float32 short", length=DIMENSIONS)
    check_vectors(vectors(ask(DIMENSIONS, encoding_format="float")), kind="float32 short", length=DIMENSIONS)
    check_refused(lambda: ask(385), "1 to 384", kind=openai.BadRequestError)


@call("embeddings.create: 2,048 texts at once")
def many():
    texts = [TEXTS[index % 3] for index in range(2048)]
    check_vectors(vectors(client.embeddings.create(model=MODEL, input=texts)), texts)


@call("embeddings.create: a text that is too long is cut, and the reply's header says which")
def cut():
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=[TEXTS[0], LONG])
    check_vectors(vectors(raw.parse()), [TEXTS[0], LONG])
    assert raw.headers["x-bgert-truncated"] == "1", dict(raw.headers)


@call("embeddings.create: a text that is not to be cut is refused")
def not_cut():
    check_refused(
        lambda: client.embeddings.create(model=MODEL, input=[LONG], extra_body={"truncate": False}),
        "longer than the 256 tokens",
        kind=openai.BadRequestError,
    )


@call("embeddings.create: token ids of another tokenizer are refused")
def token_ids():
    for given in ([9906, 1917], [[9906, 1917]]):
        check_refused(
            lambda given=given: client.embeddings.create(model=MODEL, input=given),
            "token ids",
            "check_embedding_ctx_length=False",
            kind=openai.BadRequestError,
        )


@call("models.list, models.retrieve")
def models():
    assert {model.id for model in client.models.list()} == {"minilm", "reranker"}
    assert client.models.retrieve("minilm").id == "minilm"
    check_refused(lambda: client.models.retrieve("a/b"), "a/b", "minilm", kind=openai.NotFoundError)


@call("errors: an unknown model, a reranker, too many texts, an empty text")
def errors():
    def ask(model, texts):
        return lambda: strict.embeddings.create(model=model, input=texts)

    check_refused(ask("nobody", TEXTS), "'nobody'", "minilm", "twin", kind=openai.NotFoundError)
    check_refused(ask("reranker", TEXTS), "no model for embeddings", kind=openai.BadRequestError)
    check_refused(ask("minilm", ["x"] * 9), "9 texts", "takes 8", kind=openai.BadRequestError)
    check_refused(ask("minilm", ["x", ""]), "input 1 is empty", kind=openai.BadRequestError)


@call("AsyncOpenAI: 16 requests at once")
def asynchronous():
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none") as several:
            return await asyncio.gather(
                *(several.embeddings.create(model=MODEL, input=TEXTS[: 1 + index % 3]) for index in range(16))
            )

    for index, reply in enumerate(asyncio.run(ask())):
        check_vectors(vectors(reply), TEXTS[: 1 + index % 3])
        assert reply.usage.prompt_tokens == tokens(TEXTS[: 1 + index % 3])


@call("429: without retries the error says to come again")
def overloaded():
    with Busy():
        error = check_refused(
            lambda: strict.with_options(max_retries=0).embeddings.create(model=MODEL, input=TEXTS),
            "come again",
            kind=openai.RateLimitError,
        )
    assert int(error.response.headers["retry-after"]) >= 1


@call("429: retried after Retry-After")
def retried():
    with Busy() as busy:
        check_vectors(vectors(strict.embeddings.create(model=MODEL, input=TEXTS)))
        busy.check_retried()


@call("AsyncOpenAI: 429 retried after Retry-After")
def retried_async():
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{STRICT}/v1", api_key="none") as one:
            return await one.embeddings.create(model=MODEL, input=TEXTS)

    with Busy() as busy:
        check_vectors(vectors(asyncio.run(ask())))
        busy.check_retried()


main("openai")
