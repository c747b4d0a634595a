"""The runtime's calls beside those of sentence-transformers on the same checkpoint: what goes around the network.

Graphs are compared with transformers on texts that already have their prompt and their length. This is about who puts
the prompt there, which limit counts, how the folder is pooled. Where the caller or the table of known models decided
something that sentence-transformers cannot know, or where it fails by itself, it is told, or left out with the reason.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bgert.errors import TruncationWarning
from bgert.model_folder import CallParity
from bgert_export.known_models import find_known
from bgert_export.pooling import SPLADES
from bgert_export.sentence_transformers_files import MODULES, PROMPTS, SentenceTransformersFiles, read_json
from bgert_export.settings import ASKED
from bgert_export.verification import texts as built_in
from bgert_export.verification.correlation import least_correlation
from bgert_export.verification.torch_reference import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from bgert.model_folder import Manifest
    from bgert_export.checkpoint import CheckpointFolder

    Array = NDArray[np.float32]

Limits = tuple[float | None, float | None, float | None]
"""Most absolute error, least cosine and least mean cosine; None for any."""

__all__ = ["Call", "Limits", "beyond", "compare_calls", "differences", "no_call", "reference_calls", "summary_of"]

PEER = "sentence-transformers"
_PEERS = {"encode": "encode", "encode_queries": "encode_query", "encode_corpus": "encode_document", "score": "predict"}
_ROLES = {"encode_queries": "query", "encode_corpus": "document"}
_LONG_EVERYWHERE = 2048
"""Limit up to which every call gets a text past it; above, one call is enough and costs enough."""


@dataclass
class Call:
    """One call of the runtime, and what sentence-transformers gives for it."""

    name: str
    texts: list[Any]
    """str, or pairs of str."""
    prompt: str
    """What the runtime puts before each."""
    peer_prompt: str = ""
    peer_limit: int = 0
    reference: str = PEER
    notes: list[str] = field(default_factory=list)
    """What was not compared, and why."""
    expected: Array | None = None
    """float32[n, columns]; None if there is nothing to compare with."""


def reference_calls(checkpoint: CheckpointFolder, manifest: Manifest) -> list[Call]:
    """Every call of the model's class with the results of sentence-transformers, which is released again.

    No exception of sentence-transformers comes out of here: it becomes the note of a call without results.
    """
    if manifest.roles:  # of which every vector is compared instead
        return []
    calls = _calls(checkpoint, manifest)
    reason = _no_peer(checkpoint, manifest)
    with _quiet_peer():
        try:
            peer = _Peer(checkpoint, manifest) if reason is None else None
        except Exception as error:  # whatever its parts raise
            peer, reason = None, f"{PEER} cannot load the checkpoint: {_first_line(error)}"
        for call in calls:
            if peer is not None:
                peer.try_to_run(call)
            else:
                call.notes.append(str(reason))
    return calls


def compare_calls(
    model: Any, manifest: Manifest, calls: Sequence[Call], limits: Limits
) -> tuple[list[CallParity], list[str]]:
    """Make the calls and compare.

    Args:
        model: the open Encoder or Reranker.
        manifest: its manifest.
        calls: from `reference_calls`.
        limits: most absolute error of a component (of vectors at length one) or logit, least cosine, and least mean
            cosine or correlation of scores; None for any.

    Returns:
        What goes into the manifest, and failures in words.
    """
    parities, failures = [], []
    for call in calls:
        error = None
        if call.expected is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)  # of the text that is there to be cut
                found = np.asarray(getattr(model, call.name)(call.texts)).reshape(len(call.texts), -1)
            same = found.shape == call.expected.shape
            errors, cosines = differences(manifest.kind, found, call.expected) if same else _everything(call)
            error = float(errors.max())
            worst = int(errors.argmax())
            if not same or beyond(limits, errors, cosines):
                shown = call.texts[worst][0] if isinstance(call.texts[worst], tuple) else call.texts[worst]
                how = f"by {error:.2e}" if same else f"in shape ({found.shape[1]} and {call.expected.shape[1]} columns)"
                failures.append(
                    f"{call.name} differs from {call.reference} {how} on {_short(shown)}: bgert puts {call.prompt!r} "
                    f"before it and cuts at {manifest.max_tokens} tokens, {PEER} puts {call.peer_prompt!r} and cuts at "
                    f"{call.peer_limit}"
                )
        parities.append(
            CallParity(
                call=call.name,
                reference=call.reference,
                count=0 if error is None else len(call.texts),
                max_abs_error=error,
                not_compared="; ".join(call.notes),
            )
        )
    return parities, failures


def no_call(kind: str) -> CallParity:
    """The entry of a folder whose graphs do not run here as they will be served."""
    name = "encode" if kind == "encoder" else "score"
    return CallParity(name, PEER, 0, None, "no graph of the folder runs here as the runtime serves it")


def summary_of(parities: Sequence[CallParity]) -> list[str]:
    """Lines for people: what was compared, and what was not and why."""
    lines = [
        f"{call.call}: {call.count} inputs beside {call.reference}, max abs error {call.max_abs_error:.2e}"
        for call in parities
        if call.max_abs_error is not None
    ]
    reasons: dict[str, list[str]] = {}
    for call in parities:
        if call.not_compared:
            reasons.setdefault(call.not_compared, []).append(call.call)
    return lines + [f"not compared in {', '.join(names)}: {reason}" for reason, names in reasons.items()]


def _calls(checkpoint: CheckpointFolder, manifest: Manifest) -> list[Call]:
    default = manifest.prompts.get(manifest.default_prompt, "") if manifest.default_prompt is not None else ""
    limit = checkpoint.architecture.max_tokens
    long = built_in.long_text(limit + 8)
    texts = built_in.few()
    if manifest.kind == "reranker":
        pairs = built_in.few_pairs()
        return [Call("score", [*pairs, ("which length is this?", long), (long, "a short document")], default)]
    calls = [Call("encode", [*texts, long], default)]
    for name, role in _ROLES.items():
        own = [*texts, long] if limit <= _LONG_EVERYWHERE else list(texts)
        calls.append(Call(name, own, manifest.prompts.get(role, "")))
    return calls


def _no_peer(checkpoint: CheckpointFolder, manifest: Manifest) -> str | None:
    """Why there is nothing to compare with, if that is known before loading."""
    if importlib.util.find_spec("sentence_transformers") is None:
        return f"{PEER} is not installed"
    if manifest.kind == "reranker":
        return None
    if not (checkpoint.folder / MODULES).is_file():
        if manifest.pooling == "splade":  # what SparseEncoder takes by itself
            return None
        if (manifest.pooling, manifest.normalize) != ("mean", False):
            return f"there is no {MODULES}, so {PEER} takes mean pooling without normalisation"
        return None
    files = SentenceTransformersFiles.read(
        checkpoint.folder,
        hidden_size=checkpoint.architecture.hidden_size,
        lowercase=checkpoint.tokenizer_config.get("do_lower_case"),
        pooling_asked=True,
    )
    for name in ("pooling", "normalize"):
        if files and _asked(manifest, name) and getattr(files, name) != getattr(manifest, name):
            return f"{name} {getattr(manifest, name)!r} was asked for against the checkpoint's files"
    return None


class _Peer:
    """The checkpoint folder in sentence-transformers, in float32 on the CPU."""

    def __init__(self, checkpoint: CheckpointFolder, manifest: Manifest) -> None:
        import sentence_transformers
        import torch

        self._manifest = manifest
        self._version = str(sentence_transformers.__version__)
        self._same_rules = int(self._version.split(".")[0]) >= 6
        self._identity = torch.nn.Identity()
        self._notes: list[str] = []
        self._told = _told_prompts(checkpoint, manifest)
        self._encoder = manifest.kind == "encoder"
        options: dict[str, Any] = {"device": "cpu", "trust_remote_code": False, "local_files_only": True}
        self._sparse = manifest.pooling in SPLADES
        if self._encoder:
            kind = sentence_transformers.SparseEncoder if self._sparse else sentence_transformers.SentenceTransformer
            self._model: Any = kind(str(checkpoint.folder), **options)
        else:
            self._model = sentence_transformers.CrossEncoder(
                str(checkpoint.folder), activation_fn=self._identity, **options
            )
        self._model.float().eval()  # half precision widens without loss
        if not self._same_rules:
            self._model.default_prompt_name = None  # it gets each text with its prompt
        self._settle_limit(checkpoint.architecture.max_tokens)

    def _settle_limit(self, most: int) -> None:
        """Tell it the limit that was asked for, or that it would pass the position table without."""
        limit = self._model.max_seq_length if self._encoder else self._model.tokenizer.model_max_length
        if _asked(self._manifest, "max_tokens"):
            limit = self._manifest.max_tokens
            self._notes.append(f"the limit of {limit} tokens, which was asked for")
        elif limit is None or limit > most:
            self._notes.append(f"its own limit of {limit} tokens, which is past the {most} positions of the model")
            limit = most
        elif not self._encoder and not self._same_rules and limit != self._manifest.max_tokens:
            limit = self._manifest.max_tokens
            self._notes.append(f"the limit of {limit} tokens, which version {self._version} does not read")
        self.limit = int(limit)
        if self._encoder:
            self._model.max_seq_length = self.limit
        else:
            self._model.tokenizer.model_max_length = self.limit

    def try_to_run(self, call: Call) -> None:
        """Fill in what sentence-transformers gives for a call, or why it gives nothing."""
        try:
            self._run(call)
        except Exception as error:
            call.notes.append(f"{PEER} fails: {_first_line(error)}")

    def _run(self, call: Call) -> None:
        peer = _PEERS[call.name]
        told = self._told.get(call.name)
        if not self._same_rules:
            told = f"the choice of the prompt, for which version {self._version} has other rules"
            call.texts = [text for text in call.texts if text]  # it strips texts, prompt included
        notes = [*self._notes, *([told] if told else [])]
        name = "prompt" if told and self._encoder else peer
        call.reference = f"{PEER} {self._version} {'encode' if told and self._encoder else peer}"
        call.peer_limit = self.limit
        call.peer_prompt = call.prompt if told else self._prompt(peer)
        options: dict[str, Any] = {"batch_size": 1, "show_progress_bar": False}
        if self._sparse:
            options |= {"convert_to_sparse_tensor": False}
        if not self._encoder:
            texts = [(call.prompt + query, document) for query, document in call.texts] if told else call.texts
            rows = self._model.predict([list(pair) for pair in texts], activation_fn=self._identity, **options)
        elif name == "prompt":
            rows = self._model.encode(call.texts, prompt=call.prompt, **options)
        else:
            rows = getattr(self._model, peer)(call.texts, **options)
        call.expected = np.asarray(rows, np.float32).reshape(len(call.texts), -1)
        call.notes += notes

    def _prompt(self, peer: str) -> str:
        """What it puts before texts by itself, for messages."""
        prompts, default = self._model.prompts, self._model.default_prompt_name
        candidates = {"encode_query": ["query"], "encode_document": ["document", "passage", "corpus"]}.get(peer, [])
        return next((prompts[name] for name in [*candidates, default] if name in prompts), "")


def _told_prompts(checkpoint: CheckpointFolder, manifest: Manifest) -> dict[str, str]:
    """Calls whose prompt sentence-transformers cannot know from the files, with the reason."""
    if manifest.kind == "reranker":
        return {}
    in_file: dict[str, Any] = {}
    if (checkpoint.folder / MODULES).is_file():
        in_file = read_json(checkpoint.folder, PROMPTS).get("prompts") or {}
    known = next(filter(None, (find_known([name]) for name, _ in checkpoint.names())), None)
    by_role = {}
    for role in _ROLES.values():
        text = manifest.prompts.get(role, "")
        if _asked(manifest, f"prompts.{role}"):
            by_role[role] = f"the {role} prompt, which was asked for"
        elif text and role not in in_file and known is not None and known.prompts.get(role) == text:
            by_role[role] = f"the {role} prompt, which is the published {known.name}'s and not in the files"
    told = {call: by_role[role] for call, role in _ROLES.items() if role in by_role}
    if manifest.default_prompt in by_role:
        told["encode"] = by_role[manifest.default_prompt]
    return told


def _asked(manifest: Manifest, name: str) -> bool:
    return any(choice.field == name and choice.why.startswith(ASKED) for choice in manifest.choices)


def beyond(
    limits: Limits,
    errors: NDArray[np.float64],
    cosines: NDArray[np.float64],
) -> bool:
    """Whether rows differ by more than the limits allow."""
    most, least, mean = limits
    return (
        (most is not None and not errors.max() <= most)
        or (least is not None and not cosines.min() >= least)
        or (mean is not None and not cosines.mean() >= mean)
    )


def differences(kind: str, found: Array, expected: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest error of each row, of vectors at length one, and cosines; for scores, their correlation."""
    wide = expected.astype(np.float64)
    if kind == "reranker":
        correlation = least_correlation(wide, found)
        return np.abs(found - wide).max(axis=1), np.full(len(found), correlation)
    scale = np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    lengths = np.maximum(np.linalg.norm(found.astype(np.float64), axis=1, keepdims=True), 1e-12)
    return np.abs((found - wide) / scale).max(axis=1), (wide / scale * (found / lengths)).sum(axis=1)


def _everything(call: Call) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.full(len(call.texts), np.inf), np.zeros(len(call.texts))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


@contextmanager
def _quiet_peer() -> Iterator[None]:
    """No notices of sentence-transformers: what it says of default prompts and precision is no news here."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        logger.setLevel(level)
