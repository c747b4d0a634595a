"""Embeddings in an application of your own: requests that wait at the same time run as one batch.

    pip install fastapi uvicorn
    BGERT_MODEL=BAAI/bge-small-en-v1.5 uvicorn --app-dir examples fastapi_app:app

`bgert serve` is a server that is done: queue, limits, metrics and the dialects of OpenAI, Cohere and others.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import bgert


class Texts(BaseModel):
    """What a client sends."""

    texts: list[str]
    query: bool = False
    """Whether they are search queries, which get the model's query instruction."""


class Vectors(BaseModel):
    """What it gets."""

    vectors: list[list[float]]
    tokens: int
    truncated: int
    """How many texts were longer than the model reads."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Open the model with the application and free it with it."""
    with bgert.Encoder(os.environ["BGERT_MODEL"]) as encoder:
        app.state.encoder = encoder
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/embed")
async def embed(body: Texts) -> Vectors:
    """Vectors of texts, in their order."""
    encoder: bgert.Encoder = app.state.encoder
    try:
        rows = await encoder.aencode(body.texts, prompt="query" if body.query else "document")
    except bgert.InvalidTextError as error:
        raise HTTPException(422, str(error)) from None
    return Vectors(vectors=rows.tolist(), tokens=rows.info.tokens, truncated=rows.info.n_truncated)
