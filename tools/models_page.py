"""docs/MODELS.md from the table of known models and the exporter's own descriptions."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from bgert_export.families import FAMILIES
from bgert_export.known_models import KnownModel, known_models

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "MODELS.md"
SHAPES = ROOT / "benchmarks" / "results" / "true-shapes.json"
"""What benchmarks/true_shapes.py measured."""
# Vocabularies whose language is no secret: BERT's, XLM-R's and their variants.
LANGUAGES = {21128: "Chinese", 30522: "English", 30527: "English", 30528: "English", 50368: "English"}
TRAINED = {"all-MiniLM-L6-v2": "trained weights, every precision"}
"""Models whose published weights every run of the tests exports."""
# `TextEmbedding.list_supported_models()` and its three neighbours of fastembed 0.9.1.
FASTEMBED = {
    "dense": """BAAI/bge-base-en BAAI/bge-base-en-v1.5 BAAI/bge-large-en-v1.5 BAAI/bge-small-en BAAI/bge-small-en-v1.5
        BAAI/bge-small-zh-v1.5 mixedbread-ai/mxbai-embed-large-v1 snowflake/snowflake-arctic-embed-xs
        snowflake/snowflake-arctic-embed-s snowflake/snowflake-arctic-embed-m snowflake/snowflake-arctic-embed-m-long
        snowflake/snowflake-arctic-embed-l jinaai/jina-clip-v1 Qdrant/constella-zero Qdrant/stella-en-400M-v5-doc-onnx
        Qdrant/clip-ViT-B-32-text google/siglip2-base-patch16-224 sentence-transformers/all-MiniLM-L6-v2
        jinaai/jina-embeddings-v2-base-en jinaai/jina-embeddings-v2-small-en jinaai/jina-embeddings-v2-base-de
        jinaai/jina-embeddings-v2-base-code jinaai/jina-embeddings-v2-base-zh jinaai/jina-embeddings-v2-base-es
        thenlper/gte-base thenlper/gte-large Qdrant/constella-nano nomic-ai/nomic-embed-text-v1.5
        nomic-ai/nomic-embed-text-v1.5-Q nomic-ai/nomic-embed-text-v1
        sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2
        sentence-transformers/paraphrase-multilingual-mpnet-base-v2 intfloat/multilingual-e5-large
        jinaai/jina-embeddings-v3 google/embeddinggemma-300m ibm-granite/granite-embedding-small-english-r2
        Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Embedding-0.6B-Q minishlab/potion-base-8M minishlab/potion-retrieval-32M
        minishlab/potion-multilingual-128M""",
    "cross-encoders": """Xenova/ms-marco-MiniLM-L-6-v2 Xenova/ms-marco-MiniLM-L-12-v2 BAAI/bge-reranker-base
        BAAI/bge-reranker-v2-m3 BAAI/bge-reranker-v2-m3-int8 jinaai/jina-reranker-v1-tiny-en
        jinaai/jina-reranker-v1-turbo-en jinaai/jina-reranker-v2-base-multilingual""",
}
OTHER_NAMES = {
    "stella-en-400m-v5-doc-onnx": "stella_en_400M_v5",
    "nomic-embed-text-v1.5-q": "nomic-embed-text-v1.5",
    "bge-reranker-v2-m3-int8": "bge-reranker-v2-m3",
    "ms-marco-minilm-l-6-v2": "ms-marco-MiniLM",
    "ms-marco-minilm-l-12-v2": "ms-marco-MiniLM",
}
# Names of models whose own files say everything, so that no table has to.
BY_FILES = {
    "new": ("gte-base-en-v1.5", "gte-large-en-v1.5", "stella_en_400M_v5", "gte-multilingual-base",
            "gte-multilingual-reranker-base", "snowflake-arctic-embed-m-v2.0"),
    "xlm-roberta": ("snowflake-arctic-embed-l-v2.0", "granite-embedding-278m-multilingual"),
    "modernbert": ("gte-modernbert-base", "modernbert-embed-base", "granite-embedding-small-english-r2",
                   "GTE-ModernColBERT-v1"),
    "bert": ("ms-marco-MiniLM", "Splade_PP_en_v1", "colbertv2.0", "answerai-colbert-small-v1",
             "mxbai-colbert-large-v1"),
}  # fmt: skip
# Model types of text-embeddings-inference's documentation, with bgert's where it is another word.
TEI = {
    "BERT": "bert",
    "XLM-RoBERTa": "xlm-roberta",
    "CamemBERT": "camembert",
    "RoBERTa": "roberta",
    "MPNet": "mpnet",
    "DistilBERT": "distilbert",
    "Nomic": "nomic_bert",
    "GTE": "gte",
    "ModernBERT": "modernbert",
    "JinaBERT": None,
    "Mistral": None,
    "Qwen2": None,
    "Qwen3": None,
    "Gemma3": None,
}


def measured_shapes() -> dict[str, dict[str, Any]]:
    """What came of each shape, by the name of the model that has it; those that failed left out."""
    shapes = json.loads(SHAPES.read_text("utf-8"))["shapes"] if SHAPES.exists() else {}
    return {name: entry for name, entry in shapes.items() if "error" not in entry}


def shape_lines() -> list[str]:
    """The section about true shapes; nothing where none was measured."""
    shapes = measured_shapes()
    if not shapes:
        return []
    machine = json.loads(SHAPES.read_text("utf-8"))["machine"]
    lines = [
        "## True shapes",
        "",
        "Checkpoints of published sizes with seeded random weights, exported for the CPU in fp32, compared with "
        "PyTorch over all built-in texts and lengths, and encoded with, by `benchmarks/true_shapes.py`. Published "
        "weights are another matter: export compares yours. Seconds and memory are of `bgert export`, PyTorch "
        f"included, on {machine['processor']}, {machine['cores']} cores.",
        "",
        "| shape of | type | tokens | inputs | longest | largest error | least cosine | graph | seconds | memory |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in shapes.items():
        longest = re.search(r" to (\d+) tokens", entry["corpus"])
        cosine = entry["min_cosine"]
        lines.append(
            f"| {name} | {entry['geometry'][0]} | {entry['max_tokens']:,} | {entry['inputs']} "
            f"| {int(longest[1]) if longest else 0:,} | {entry['max_abs_error']:.1e} "
            f"| {'' if cosine is None else f'{cosine:.7f}'} | {entry['graph_bytes'] / 1e6:,.0f} MB "
            f"| {entry['seconds']:.0f} | {entry['peak_rss_bytes'] / 1e9:.1f} GB |"
        )
    return [*lines, ""]


def row(model: KnownModel) -> str:
    """A line of the table."""
    model_type, layers, hidden, _, inner, vocabulary = model.geometry
    gated = 1.5 if FAMILIES[model_type].gated else 1.0
    parameters = vocabulary * hidden + layers * (4 * hidden * hidden + int(gated * 2 * hidden * inner))
    prompts = ", ".join(f"`{name}`" for name in model.prompts if model.prompts[name]) or "none"
    same = [model.kind, list(model.geometry)]
    shaped = any([entry["kind"], entry["geometry"]] == same for entry in measured_shapes().values())
    verified = TRAINED.get(model.name, f"its {'shape' if shaped else 'architecture'}, on random weights")
    normalize = {True: ", length one", False: "", None: "; normalisation by its files"}[model.normalize]
    pooling = "scores" if model.kind == "reranker" else f"{model.pooling}{normalize}"
    language = LANGUAGES.get(vocabulary, "many")
    columns = hidden if model.kind == "encoder" else 1
    return (
        f"| {model.owner}/{model.name} | {model_type} | {parameters / 1e6:.0f} M | {columns} | {model.max_tokens:,} "
        f"| {language} | {prompts} | {pooling} | {verified} |"
    )


def covered(name: str) -> bool:
    """Whether a model of somebody's list is named here."""
    last = name.rsplit("/", 1)[-1].lower()
    ours = {model.name for model in known_models()} | {model for models in BY_FILES.values() for model in models}
    return OTHER_NAMES.get(last, last).lower() in {model.lower() for model in ours}


def page() -> str:
    """The whole page."""
    lines = [
        "# Supported models",
        "",
        "*Made by `python tools/models_page.py` from the exporter's tables; a test compares.*",
        "",
        "An architecture is supported, not a list: any checkpoint of these `model_type`s exports, by its own files, "
        "and is proved equal to PyTorch before it is kept. Names below are models whose pooling, prompts and limits "
        "bgert knows where their files do not say.",
        "",
        "| `model_type` | targets | checkpoints |",
        "| --- | --- | --- |",
    ]
    for model_type, family in FAMILIES.items():
        heads = ", ".join(f"`{name}`" for name in family.classes)
        lines.append(f"| {model_type} | {targets(model_type)} | {heads} |")
    lines += [
        "",
        "Everything else that transformers has a class of its own for: `bgert export SOURCE --via torch` or "
        "`--via optimum`, on the CPU in fp32, through the same comparison ([Export](EXPORT.md)).",
        "",
        "## Known by name",
        "",
        "| model | type | parameters | dimensions | tokens | languages | prompts | pooling | verified here |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(model) for model in known_models()),
        "",
        "*Verified: every run of the tests exports a checkpoint of each architecture and compares it with PyTorch. "
        "Published weights cannot be had without a model hub, but for all-MiniLM-L6-v2's; export compares yours.*",
        "",
        "## By their own files",
        "",
        "Some of those whose files say everything: "
        + "; ".join(f"{', '.join(names)} ({model_type})" for model_type, names in BY_FILES.items())
        + ". Their published weights have not been seen here either.",
        "",
        *shape_lines(),
        "## Beside the lists of others",
        "",
    ]
    for what, names in FASTEMBED.items():
        all_of_them = names.split()
        missing = [name for name in all_of_them if not covered(name)]
        lines.append(
            f"- **fastembed 0.9.1, {what}**: {len(all_of_them) - len(missing)} of {len(all_of_them)}. Not: "
            f"{', '.join(missing)}."
        )
    has = [name for name, ours in TEI.items() if ours in FAMILIES]
    lacks = [name for name, ours in TEI.items() if ours not in FAMILIES]
    lines.append(
        f"- **text-embeddings-inference, architectures**: {len(has)} of {len(TEI)} ({', '.join(has)}). Not: "
        f"{', '.join(lacks)}."
    )
    return "\n".join(lines) + "\n"


def targets(model_type: str) -> str:
    """Where graphs of an architecture run, by what its writers refuse."""
    family = FAMILIES[model_type]
    names = ["cpu", "cpu-bf16", "cpu-int8"]
    if family.relative_bias is None and not family.pre_norm:
        names += ["cuda", "tensorrt", "tensorrt-bf16", "portable"]
        if family.rotary is None:
            names += ["cuda-fused", "cuda-fused-erf"]
    return ", ".join(names)


def main() -> int:
    """Write the page, or say that it is old."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit with 1 where the page is out of date")
    if parser.parse_args().check:
        return int(not PAGE.exists() or PAGE.read_text("utf-8") != page())
    PAGE.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
