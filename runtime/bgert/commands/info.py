"""`bgert info`: what a model folder holds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from bgert.model_folder import Manifest

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("folder", help="model folder, checkpoint folder or hub id")
    parser.add_argument("--json", action="store_true", help="print the manifest")


def run(args: argparse.Namespace) -> int:
    """Print the manifest, shortly or whole."""
    from bgert.hub import locate
    from bgert.model_folder import Manifest

    manifest = Manifest.read(locate(args.folder))
    if args.json:
        print(json.dumps(asdict(manifest), ensure_ascii=False, indent=2))
        return 0
    architecture = manifest.architecture
    numbers = ", ".join(f"{key} {value}" for key, value in architecture.items() if isinstance(value, int))
    lines = [
        ("kind", manifest.kind),
        (
            "source",
            ", ".join(str(manifest.source[key]) for key in ("id", "path", "revision") if manifest.source.get(key)),
        ),
        ("architecture", f"{architecture.get('model_type', '?')}: {numbers}"),
        ("tokenizer", _tokenizer(manifest.tokenizer)),
        ("max tokens", f"{manifest.max_tokens}, up to {manifest.positions} by max_length"),
    ]
    if manifest.roles:
        lines += _multi_vector(manifest)
    elif manifest.kind == "encoder":
        lines.append(
            (
                "embedding",
                f"{manifest.dimensions} dimensions, {manifest.pooling} pooling, "
                f"{'L2-normalised' if manifest.normalize else 'not normalised'}",
            )
        )
    lines += [(f"prompt {name}", repr(text)) for name, text in manifest.prompts.items()]
    for graph in manifest.graphs:
        size = sum(entry.size for entry in graph.files) / 1e6
        parity = graph.parity
        verdict = "NOT VERIFIED"
        if parity is not None:
            quality = ""
            if parity.min_cosine is not None and parity.mean_cosine is not None:
                quality = f", cosine {parity.mean_cosine:.7f} in the mean, {parity.min_cosine:.7f} at least"
            verdict = f"{parity.count} inputs against {parity.reference}: max error {parity.max_abs_error:.1e}{quality}"
        lines.append((f"graph {graph.target} {graph.precision}", f"{size:.0f} MB, {graph.minimum_engine}; {verdict}"))
    lines += [(f"choice {choice.field}", f"{choice.value!r}: {choice.why}") for choice in manifest.choices]
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        # A stranger's manifest may hold what would steer the terminal.
        print("".join(one if one.isprintable() else repr(one)[1:-1] for one in f"{name:<{width}}  {value}"))
    return 0


def _multi_vector(manifest: Manifest) -> list[tuple[str, str]]:
    """What a ColBERT model gives, and how it reads queries and documents."""
    normalized = "L2-normalised" if manifest.normalize else "not normalised"
    lines = [("multi-vector", f"a vector of {manifest.dimensions} dimensions a token, {normalized}, by MaxSim")]
    for name, role in manifest.roles.items():
        parts = [f"at most {role.max_tokens or manifest.max_tokens} tokens"]
        if role.prefix_ids:
            parts.append(f"marked by {', '.join(map(str, role.prefix_ids))}")
        if role.expand_to:
            how = "which others see" if role.attend else "which others do not see"
            parts.append(f"filled up to {role.expand_to} with {role.expansion_id}, {how}")
        if role.skip_ids:
            parts.append(f"without the vectors of {len(role.skip_ids)} ids")
        lines.append((name, ", ".join(parts)))
    return lines


def _tokenizer(section: dict[str, Any]) -> str:
    """What makes the ids."""
    if section["kind"] != "huggingface":
        return f"{section['kind']}, bgert's own"
    return (
        "huggingface: HF tokenizers makes the ids, a package built in Rust, at its speed, and not bgert's own code; "
        "it needs the extra `hf-tokenizers`"
    )
