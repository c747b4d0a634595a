"""What is published of models but not always in their files: pooling, normalisation, query instruction.

Sources: the model cards of their organisations; for bge FlagEmbedding's README too, for llm-embedder its README's table
of tasks. An instruction goes before short queries that search long passages; passages get none, but e5's do. What a
card leaves open is None, and then the checkpoint's files or the caller must say it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bgert_export.checkpoint import Hyperparameters

__all__ = ["KnownModel", "find_known", "known_models", "published_id"]

ENGLISH = "Represent this sentence for searching relevant passages: "
# The published model files have a full-width colon; some copies of the model card show an ASCII one.
CHINESE = "为这个句子生成表示以用于检索相关文章："

_TASKS: dict[str, tuple[str, str]] = {
    "qa": (
        "Represent this query for retrieving relevant documents: ",
        "Represent this document for retrieval: ",
    ),
    "icl": (
        "Convert this example into vector to look for useful examples: ",
        "Convert this example into vector for retrieval: ",
    ),
    "chat": (
        "Embed this dialogue to find useful historical dialogues: ",
        "Embed this historical dialogue for retrieval: ",
    ),
    "lrlm": (
        "Embed this text chunk for finding useful historical chunks: ",
        "Embed this historical text chunk for retrieval: ",
    ),
    "tool": (
        "Transform this user request for fetching helpful tool descriptions: ",
        "Transform this tool description for retrieval: ",
    ),
    "convsearch": (
        "Encode this query and context for searching relevant passages: ",
        "Encode this passage for retrieval: ",
    ),
}

Geometry = tuple[str, int, int, int, int, int]
"""model_type, layers, hidden size, heads, feed-forward size, vocabulary."""


@dataclass(frozen=True)
class KnownModel:
    """One row of the table."""

    name: str
    """Without the organisation."""
    geometry: Geometry
    kind: str = "encoder"
    prompts: dict[str, str] = field(default_factory=dict)
    lowercase: bool | None = None
    """What the published tokenizer does; None where it was not checked."""
    pooling: str | None = "cls"
    normalize: bool | None = True
    """None where nobody publishes it."""
    max_tokens: int = 512
    owner: str = "BAAI"
    """The organisation on the hub."""

    def fits(self, architecture: Hyperparameters) -> bool:
        """Whether a checkpoint has this model's kind and geometry."""
        return architecture.kind == self.kind and self.geometry == (
            architecture.model_type,
            architecture.num_hidden_layers,
            architecture.hidden_size,
            architecture.num_attention_heads,
            architecture.intermediate_size,
            architecture.vocab_size,
        )


def find_known(names: Iterable[str]) -> KnownModel | None:
    """The first of the names that is a known model's; organisations, case and folders before a name do not count."""
    for name in names:
        last = name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1].lower()
        if last in _BY_NAME:
            return _BY_NAME[last]
    return None


def published_id(name: str) -> str | None:
    """The hub id of a known model that was named without its organisation."""
    known = _BY_NAME.get(name.lower())
    return f"{known.owner}/{known.name}" if known is not None else None


def _encoders() -> Iterable[KnownModel]:
    sizes = {"small": (12, 384, 12, 1536), "base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}
    for size, shape in sizes.items():
        for version in ("", "-v1.5"):
            yield KnownModel(
                f"bge-{size}-en{version}", ("bert", *shape, 30522), prompts={"query": ENGLISH}, lowercase=True
            )
            chinese = (4, 512, 8, 2048) if size == "small" else shape
            yield KnownModel(
                f"bge-{size}-zh{version}",
                ("bert", *chinese, 21128),
                prompts={"query": CHINESE},
                lowercase=False if size == "small" else None,
            )
    prompts = {"query": _TASKS["qa"][0], "document": _TASKS["qa"][1]}
    for task, (query, key) in _TASKS.items():
        prompts |= {f"{task}-query": query, f"{task}-document": key}
    yield KnownModel("bge-m3", ("xlm-roberta", 24, 1024, 16, 4096, 250002), max_tokens=8192)
    yield KnownModel("llm-embedder", ("bert", 12, 768, 12, 3072, 30522), prompts=prompts, lowercase=True)


_SMALL, _BASE, _LARGE = (12, 384, 12, 1536), (12, 768, 12, 3072), (24, 1024, 16, 4096)
_MINILM = (6, 384, 12, 1536)


def _others() -> Iterable[KnownModel]:
    """Encoders of other organisations, of architectures that are exported."""
    e5 = {"query": "query: ", "document": "passage: "}
    for size, shape in {"small": _SMALL, "base": _BASE, "large": _LARGE}.items():
        geometry = ("bert", *shape, 30522)
        for name in (f"e5-{size}", f"e5-{size}-v2"):
            yield KnownModel(name, geometry, prompts=e5, lowercase=True, pooling="mean", owner="intfloat")
        yield KnownModel(f"gte-{size}", geometry, lowercase=True, pooling="mean", owner="thenlper")
        geometry = ("bert", *shape, 250037) if size == "small" else ("xlm-roberta", *shape, 250002)
        yield KnownModel(f"multilingual-e5-{size}", geometry, prompts=e5, pooling="mean", owner="intfloat")
    query = {"query": ENGLISH}
    for name, shape in {"xs": _MINILM, "s": _SMALL, "m": _BASE, "m-v1.5": _BASE, "l": _LARGE}.items():
        yield KnownModel(
            f"snowflake-arctic-embed-{name}",
            ("bert", *shape, 30522),
            prompts=query,
            lowercase=True,
            owner="Snowflake",
        )
    for name, owner in {"mxbai-embed-large-v1": "mixedbread-ai", "UAE-Large-V1": "WhereIsAI"}.items():
        yield KnownModel(
            name, ("bert", *_LARGE, 30522), prompts=query, lowercase=True, normalize=None, owner=owner
        )  # fmt: skip
    for name, shape, vocabulary, normalize, limit in (
        ("all-MiniLM-L6-v2", _MINILM, 30522, True, 256),
        ("all-MiniLM-L12-v2", _SMALL, 30522, True, 128),
        ("multi-qa-MiniLM-L6-cos-v1", _MINILM, 30522, True, 512),
        ("paraphrase-MiniLM-L6-v2", _MINILM, 30522, False, 128),
        ("paraphrase-multilingual-MiniLM-L12-v2", _SMALL, 250037, False, 128),
    ):
        yield KnownModel(
            name,
            ("bert", *shape, vocabulary),
            pooling="mean",
            normalize=normalize,
            max_tokens=limit,
            owner="sentence-transformers",
        )


def _other_families() -> Iterable[KnownModel]:
    """Not of BERT's own shape."""
    base = (12, 768, 12, 3072)
    for name, model_type, shape, vocabulary, pooling, normalize, limit in (
        ("all-mpnet-base-v1", "mpnet", base, 30527, "mean", True, 512),
        ("all-mpnet-base-v2", "mpnet", base, 30527, "mean", True, 384),
        ("multi-qa-mpnet-base-cos-v1", "mpnet", base, 30527, "mean", True, 512),
        ("multi-qa-mpnet-base-dot-v1", "mpnet", base, 30527, "cls", False, 512),
        ("paraphrase-mpnet-base-v2", "mpnet", base, 30527, "mean", False, 512),
        ("paraphrase-multilingual-mpnet-base-v2", "xlm-roberta", base, 250002, "mean", False, 128),
        ("multi-qa-distilbert-cos-v1", "distilbert", (6, 768, 12, 3072), 30522, "mean", True, 512),
    ):
        yield KnownModel(
            name,
            (model_type, *shape, vocabulary),
            pooling=pooling,
            normalize=normalize,
            max_tokens=limit,
            owner="sentence-transformers",
        )
    # Whether they are normalised, their files say. Both of nomic's prompts are needed: its card, "Usage".
    tasks = {"query": "search_query: ", "document": "search_document: "}
    tasks |= {name: f"{name}: " for name in ("classification", "clustering")}
    for name, owner, prompts, pooling, limit in (
        ("nomic-embed-text-v1", "nomic-ai", tasks, "mean", 8192),
        ("nomic-embed-text-v1.5", "nomic-ai", tasks, "mean", 8192),
        ("snowflake-arctic-embed-m-long", "Snowflake", {"query": ENGLISH}, "cls", 2048),
    ):
        yield KnownModel(
            name,
            ("nomic_bert", *base, 30528),
            prompts=prompts,
            lowercase=True,
            pooling=pooling,
            normalize=None,
            max_tokens=limit,
            owner=owner,
        )


def _rerankers() -> Iterable[KnownModel]:
    for size, shape in {"base": (12, 768, 12, 3072), "large": (24, 1024, 16, 4096)}.items():
        yield KnownModel(
            f"bge-reranker-{size}",
            ("xlm-roberta", *shape, 250002),
            kind="reranker",
            pooling=None,
            normalize=False,
        )

    yield KnownModel(
        "bge-reranker-v2-m3",
        ("xlm-roberta", 24, 1024, 16, 4096, 250002),
        kind="reranker",
        pooling=None,
        normalize=False,
        max_tokens=8192,
    )


def known_models() -> tuple[KnownModel, ...]:
    """The whole table."""
    return tuple(_BY_NAME.values())


_BY_NAME = {model.name.lower(): model for model in (*_encoders(), *_others(), *_other_families(), *_rerankers())}
