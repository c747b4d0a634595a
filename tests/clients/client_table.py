"""Which client is run in which environment, and the table of it in docs/clients.md."""

from pathlib import Path

import asking

HERE = Path(__file__).resolve().parent
TABLE = HERE.parents[1] / "docs/clients.md"
REQUIREMENTS = sorted(HERE.glob("environment_*.txt"))
PROGRAMS = [
    ("environment_1", "with_openai.py"),
    ("environment_1", "with_cohere.py"),
    ("environment_2", "with_cohere.py"),
    ("environment_1", "with_huggingface_hub.py"),
    ("environment_2", "with_huggingface_hub.py"),
    ("environment_1", "with_langchain_openai.py"),
    ("environment_2", "with_langchain.py"),
    ("environment_2", "with_llama_index.py"),
    ("environment_2", "with_haystack.py"),
    ("environment_1", "with_litellm.py"),
]
HEAD = """# Clients

Each of these calls is made by the real client, at the version that is named, against a `bgert serve` of its own with
all-MiniLM-L6-v2 and a reranker, and its vectors and scores are bit for bit those of `Encoder` and `Reranker`
(cosines within 1e-6). `python tests/clients/run.py --write` makes the calls and this table.

What to set or to know:

- langchain-openai sends ids of OpenAI's tokenizer, which are refused, unless told `check_embedding_ctx_length=False`.
- langchain-huggingface takes no address: set `.client` and `.async_client` to huggingface_hub's clients of the server.
- litellm's `infinity/` rerank cannot read documents in a reply: `return_documents=False`, or use `hosted_vllm/`.
- jina-haystack wants the whole address, `/v1/embeddings` or `/v1/rerank` with it; litellm's `cohere/` `/v1/embed`.
- huggingface_hub does not try again after a 429 and refuses every address while `HF_HUB_OFFLINE` is set.
- llama-index-embeddings-huggingface-api fails on the second call of one object ("Event loop is closed").

| Client | Version | Call | |
|---|---|---|---|
"""


def pinned(environment):
    """Version by package."""
    lines = (HERE / f"{environment}.txt").read_text("utf-8").split()
    return dict(line.split("==") for line in lines if "==" in line)


def expected():
    """(client, version, call) of all programs, in order."""
    rows = []
    for environment, program in PROGRAMS:
        source = (HERE / program).read_text("utf-8")
        package = source.rsplit('main("', 1)[1].split('"')[0]
        versions = pinned(environment)
        rows += [(client, versions[client], name) for client, name in asking.names_in(source, package)]
    return rows


def render(rows):
    """The page of rows that were run."""
    lines = [
        f"| {row['client']} | {row['version']} | {row['call']} | {'FAILED' if row['problem'] else 'passed'} |\n"
        for row in rows
    ]
    return HEAD + "".join(lines)
